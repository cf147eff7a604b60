//! Everything that an endless answer says, byte by byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::api::Api;

/// Pause before asking again where there is nothing to play yet.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A download under way; dropping it ends the request.
pub struct Capture {
    received: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Capture {
    /// Asks for this path until it is there, then reads.
    pub fn start(api: &Api, path: &str) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let (api, path, to) = (api.clone(), path.to_owned(), received.clone());
        let task = tokio::spawn(async move {
            while !capture(&api, &path, &to).await {
                sleep(AGAIN_AFTER).await;
            }
        });
        Self { received, task }
    }

    /// What has come so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.received.lock().expect("no panic").clone()
    }
}

/// False if it was not there.
async fn capture(api: &Api, path: &str, to: &Mutex<Vec<u8>>) -> bool {
    let request = api.request(Method::GET, path).body(Full::default());
    let Ok(response) = api.open(request.expect("a path")).await else {
        return false;
    };
    if !response.status().is_success() {
        return false;
    }
    let mut body = response.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            to.lock().expect("no panic").extend_from_slice(&data);
        }
    }
    true
}
