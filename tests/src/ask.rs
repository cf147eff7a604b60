//! Requests written as in the contract's table, with and without the token.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use serde_json::Value;

use crate::api::{Answer, Api};

/// A request to be: `GET /nodes`, a body, who asks.
#[derive(Clone)]
pub struct Ask<'a> {
    api: &'a Api,
    line: String,
    token: bool,
    kind: Option<&'static str>,
    body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl<'a> Ask<'a> {
    /// `METHOD /path`, the path under `/api/v1` unless it begins with `//`; with the token.
    pub fn new(api: &'a Api, line: impl Into<String>) -> Self {
        Self {
            api,
            line: line.into(),
            token: true,
            kind: None,
            body: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Without the token.
    pub fn anybody(mut self) -> Self {
        self.token = false;
        self
    }

    /// With this text as a JSON body.
    pub fn json(self, body: impl Into<String>) -> Self {
        self.typed("application/json", body.into())
    }

    /// With a body of this type.
    pub fn typed(mut self, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        self.kind = Some(kind);
        self.body = body.into();
        self
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sends it, and answers.
    pub async fn send(self) -> Answer {
        let (method, path) = self.line.split_once(' ').expect("METHOD /path");
        let path = match path.strip_prefix('/') {
            Some(outside) if outside.starts_with('/') => outside.to_owned(),
            _ => format!("/api/v1{path}"),
        };
        let mut request = Request::builder().method(method).uri(path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            request = request.header(HOST, &self.api.authority);
        }
        if self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", self.api.token));
        }
        if let Some(kind) = self.kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(self.body));
        let answer = self.api.send(request.body(body).expect("a request")).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", self.line))
    }

    /// Sends it; the answer must have this status and be JSON (or empty, for 202 and 204).
    pub async fn gives(self, status: u16) -> Value {
        let line = self.line.clone();
        let answer = self.send().await;
        assert_eq!(answer.status, status, "{line}: {answer}");
        if status == 204 || status == 202 {
            assert!(answer.body.is_empty(), "{line}: {answer}");
            return Value::Null;
        }
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json", "{line}");
        serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{line}: {e}: {answer}"))
    }

    /// Sends it; the answer must be a problem (RFC 9457) of this status, and is given whole.
    pub async fn refused(self, status: u16) -> Answer {
        let line = self.line.clone();
        let answer = self.send().await;
        assert_eq!(answer.status, status, "{line}: {answer}");
        let kind = &answer.headers[CONTENT_TYPE];
        assert_eq!(kind, "application/problem+json", "{line}: {answer}");
        let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
        for (field, is_right) in [
            ("type", problem["type"].is_string()),
            (
                "title",
                problem["title"].as_str().is_some_and(|t| !t.is_empty()),
            ),
            ("status", problem["status"] == status),
            (
                "detail",
                problem["detail"].as_str().is_some_and(|t| !t.is_empty()),
            ),
        ] {
            assert!(is_right, "{line}: `{field}` of {problem}");
        }
        let retry = answer.headers.contains_key("retry-after");
        assert_eq!(retry, matches!(status, 429 | 503), "{line}: Retry-After");
        answer
    }
}

/// Checks that an object has fields, each of the kind that stands behind it, like
/// `name:text rtt_ms:number? self:bool`; `?` lets it be null.
pub fn has_fields(object: &Value, fields: &str) {
    for field in fields.split_whitespace() {
        let (name, kind) = field.split_once(':').expect("name:kind");
        let value = object.get(name);
        let value = value.unwrap_or_else(|| panic!("no `{name}` in {object}"));
        let (kind, nullable) = match kind.strip_suffix('?') {
            Some(kind) => (kind, true),
            None => (kind, false),
        };
        let fits = match kind {
            "text" => value.is_string(),
            "uuid" => value
                .as_str()
                .is_some_and(|t| uuid::Uuid::parse_str(t).is_ok()),
            "time" => value.as_str().is_some_and(is_utc),
            "number" => value.is_number(),
            "whole" => value.is_u64(),
            "bool" => value.is_boolean(),
            "list" => value.is_array(),
            "object" => value.is_object(),
            words => words.split('|').any(|word| value == word),
        };
        assert!(
            fits || (nullable && value.is_null()),
            "`{name}` is no {kind}: {value}"
        );
    }
}

/// RFC 3339 in UTC: `2026-11-25T00:00:00.000Z`.
fn is_utc(text: &str) -> bool {
    let form: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    matches!(
        form.as_str(),
        "0000-00-00T00:00:00Z" | "0000-00-00T00:00:00.000Z"
    )
}
