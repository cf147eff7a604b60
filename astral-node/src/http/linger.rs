//! A request's body that is read to its end for a while even if nobody wants it.
//!
//! A server that answers early and closes makes the peer's kernel throw the
//! answer away together with what it could not send (RFC 9112 §9.6): the caller
//! would see a broken connection instead of its 401 or 413.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Longest that an unwanted body is read.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// Most bytes of an unwanted body that are read.
const LINGER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The body; what is left of it when it is dropped is read and forgotten.
pub(super) struct Lingering {
    body: Option<Incoming>,
    /// The caller sends nothing before it is told to (`Expect: 100-continue`),
    /// and must not be told to by reading a body that is not wanted.
    holds_back: bool,
    tasks: TaskTracker,
}

impl Lingering {
    pub(super) fn new(body: Incoming, headers: &HeaderMap, tasks: TaskTracker) -> Self {
        Self {
            body: Some(body),
            holds_back: headers.contains_key(EXPECT),
            tasks,
        }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.holds_back = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.holds_back || body.is_end_stream() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            self.tasks
                .spawn_on(timeout(LINGER_MAX, drain(body)), &runtime);
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = LINGER_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
