//! Headers that every answer carries, whatever its route.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY,
    HeaderName, HeaderValue, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};

use super::guard::Area;

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Nothing may run, load or be framed: for all that is not a page.
const CSP_DATA: &str = "default-src 'none'; frame-ancestors 'none'";
/// What a page may do: its own scripts and styles, and media made by script.
macro_rules! csp_page {
    ($ancestors:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ",
            "img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; ",
            "base-uri 'none'; form-action 'none'; frame-ancestors ",
            $ancestors
        )
    };
}
const CSP_PAGE: &str = csp_page!("'none'");
const CSP_EMBED: &str = csp_page!("*");

/// Puts the headers on; `cors` is the allowed origin that asked.
///
/// The referrer policy is `same-origin`, since browsers send `Origin: null` from
/// a page under `no-referrer` (Fetch §3.2).
pub(super) fn dress(mut response: Response, area: Area, cors: Option<HeaderValue>) -> Response {
    let csp = match area {
        Area::Watch { embed: true, .. } => CSP_EMBED,
        Area::Watch { embed: false, .. } | Area::Page => CSP_PAGE,
        Area::Assets | Area::Media | Area::Health | Area::Ready | Area::Api => CSP_DATA,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, csp),
        (RESOURCE_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (VARY, "origin, sec-fetch-site"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A page that was opened by a site to say that it runs keeps its opener.
    let alone = Area::Watch {
        embed: false,
        opened: false,
    };
    if area == alone || area == Area::Page {
        headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Some(origin) = cors {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("allow, location, retry-after, www-authenticate"),
        );
    }
    response
}

/// The answer to a preflight of an allowed origin (Fetch §3.2.2), which [`dress`] completes.
///
/// Two hours are the most that Chromium keeps it. The guard's header is not
/// among those allowed: it is for the node's own pages.
pub(super) fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, POST, PUT, PATCH, DELETE",
        ),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (ACCESS_CONTROL_MAX_AGE, "7200"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
