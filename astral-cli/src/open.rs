//! `open`: the node's own pages, in the browser.

use serde_json::{Value, json};

use astral_proto::api::settings::{SettingValue, Settings};
use astral_proto::api::{Link, NewLink};
use http::Method;

use crate::args::Open;
use crate::client::{decode, encoded};
use crate::commands::Session;
use crate::failure::Failure;
use crate::{term, watch};

/// Runs the command.
pub(crate) async fn run(session: &Session, open: &Open) -> Result<(), Failure> {
    let path = match &open.slug {
        Some(slug) => {
            let (stream, _) = session.stream(slug).await?;
            format!("/watch/{}", encoded(&stream.slug))
        }
        None => "/".to_owned(),
    };
    let (settings, _): (Settings, _) = session.api.get(&["settings"]).await?;
    let link = match is_closed(&settings) {
        true => one_time(session, &path).await?,
        false => json!({ "url": format!("{}{path}", session.api.base()) }),
    };
    if session.global.json {
        return crate::commands::json(&link);
    }
    let url = link["url"].as_str().unwrap_or_default();
    if watch::open_browser(url) {
        term::line(&format!("opened {url}"))?;
    } else {
        term::line(url)?;
        session.note("no browser could be opened here: open the address above");
    }
    if let Some(seconds) = link["expires_in_s"].as_u64() {
        session.note(&format!(
            "it works once, within {seconds} s; let nobody else see it"
        ));
    }
    Ok(())
}

/// Whether the node's pages ask for the token.
fn is_closed(settings: &Settings) -> bool {
    let setting = settings.0.get("require_token");
    setting.is_some_and(|setting| setting.value == Some(SettingValue::Switch(true)))
}

async fn one_time(session: &Session, path: &str) -> Result<Value, Failure> {
    let body = NewLink {
        path: path.to_owned(),
    };
    let raw = session.api.send(Method::POST, &["links"], &body).await?;
    let link: Link = decode(&raw)?;
    serde_json::to_value(link).map_err(Failure::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn settings(require_token: bool) -> Value {
        json!({"require_token": {"value": require_token, "source": "flag", "changeable": false}})
    }

    #[tokio::test]
    async fn a_secret_is_asked_for_only_where_pages_ask_for_the_token() {
        for closed in [true, false] {
            let fake = Fake::start(move |line| match line {
                "GET /api/v1/settings" => (200, settings(closed)),
                "POST /api/v1/links" => {
                    (201, json!({"url": "http://x/open/s", "expires_in_s": 60}))
                }
                other => panic!("{other}"),
            })
            .await;
            let session = fake.session(&["--json"]);
            run(&session, &Open { slug: None }).await.unwrap();
            let asked: Vec<String> = fake.seen().into_iter().map(|seen| seen.line).collect();
            assert_eq!(asked.len(), if closed { 2 } else { 1 });
            if closed {
                assert_eq!(fake.seen()[1].body, r#"{"path":"/"}"#);
            }
        }
    }
}
