//! `GET /openapi.json`: the node's HTTP API as OpenAPI 3.1, made from what stands beside
//! each route and from the API's types.
//!
//! Pages are no part of it. That every other route is in it, and nothing else, is tested.

use std::sync::OnceLock;

use axum::response::{IntoResponse as _, Response};
use hyper::header::CONTENT_TYPE;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::api::{events, links, node, ping, settings, streams, tickets};
use super::problem::PROBLEM_JSON;
use super::{ingest, ingest_ws, live, metrics, pages};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "astral-node",
        description = "A node of the Astral network: publishes, forwards and plays live streams. \
                       Changes need the token of the node's ready file."
    ),
    paths(
        node::this,
        node::shutdown,
        node::list,
        node::one,
        node::forget,
        streams::list,
        streams::publish,
        streams::one,
        streams::pause,
        streams::end,
        tickets::list,
        tickets::of_stream,
        tickets::make,
        tickets::revoke,
        tickets::stop,
        events::stream,
        settings::show,
        settings::change,
        links::make,
        ping::send,
        ping::take,
        pages::health,
        pages::ready,
        metrics::metrics,
        document,
        ingest::take,
        live::mp4::stream,
        live::ws::connect,
        live::ts::stream,
        live::hls::file,
        ingest_ws::connect,
    ),
    components(schemas(astral_proto::api::Problem)),
    modifiers(&Common)
)]
struct Api;

/// What every route has in common: how it refuses, and how a caller shows the token.
struct Common;

impl Modify for Common {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let problem = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(problem)).build();
        let refusal = ResponseBuilder::new()
            .description("Refused: a problem as RFC 9457 has it")
            .content(PROBLEM_JSON, content)
            .build();
        for (path, item) in &mut api.paths.paths {
            let operations = [
                ("get", &mut item.get),
                ("put", &mut item.put),
                ("post", &mut item.post),
                ("delete", &mut item.delete),
                ("patch", &mut item.patch),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                operation.operation_id = Some(operation_id(method, path));
                let responses = &mut operation.responses.responses;
                responses.insert("default".to_owned(), RefOr::T(refusal.clone()));
            }
        }
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// Such as `delete_node`: handlers' names, of which several are `list`, would not tell
/// operations apart.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let words = path.split(['/', '{', '}', '.']);
    let words = words.filter(|word| !word.is_empty());
    [method]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

/// `GET /openapi.json`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "This document", body = Object)),
)]
pub(super) async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        let json = Api::openapi().to_json();
        json.expect("the document is text, numbers and lists")
    });
    ([(CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Pages and what they load.
    const PAGES: [&str; 4] = ["/", "/publish", "/watch/{slug}", "/assets/{*path}"];

    fn document() -> Value {
        serde_json::to_value(Api::openapi()).unwrap()
    }

    /// Paths that the router is given, as its source has them.
    fn routes() -> BTreeSet<String> {
        let source = include_str!("routes.rs");
        let (outside, api) = source.split_once("\nfn api()").unwrap();
        let paths = |text: &str| -> Vec<String> {
            let quoted = text.split('"').skip(1).step_by(2);
            quoted
                .filter(|t| t.starts_with('/'))
                .map(str::to_owned)
                .collect()
        };
        let outside = paths(outside).into_iter().filter(|path| path != "/api/v1");
        let api = paths(api).into_iter().map(|path| format!("/api/v1{path}"));
        outside.chain(api).collect()
    }

    #[test]
    fn every_route_but_the_pages_is_in_the_document_and_nothing_else() {
        let document = document();
        let documented: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let mut routes = routes();
        routes.retain(|path| !PAGES.contains(&path.as_str()));
        assert_eq!(documented, routes);
    }

    #[test]
    fn every_operation_is_described_and_can_be_refused_with_a_problem() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let place = format!("{method} {path}");
                assert!(operation["summary"].is_string(), "{place}");
                let refusal = &operation["responses"]["default"]["content"][PROBLEM_JSON];
                assert!(refusal["schema"]["$ref"].is_string(), "{place}");
                let open = method == "get" || path == "/api/v1/ping" || path == "/ingest/{key}";
                assert_eq!(operation.get("security").is_none(), open, "{place}");
            }
        }
        assert!(document["components"]["schemas"]["Problem"].is_object());
    }
}
