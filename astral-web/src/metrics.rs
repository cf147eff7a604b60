//! What is counted, in Prometheus' words (OpenMetrics 1.0):
//!
//! | name | what |
//! |---|---|
//! | `astral_web_build_info{version}` | 1 |
//! | `astral_web_nodes`, `astral_web_supernodes` | live node records, and those of supernodes |
//! | `astral_web_streams` | live stream records, unlisted ones too |
//! | `astral_web_remembered{kind}` | ids whose highest `seq` is remembered |
//! | `astral_web_requests_total{area,status}` | answers by area (`api`, `page`, `probe`) and status |
//! | `astral_web_submissions_total{kind,status}` | records by kind (`node`, `stream`) and the status of their answer |
//! | `astral_web_limited_total` | requests that were refused since their caller asks too much |
//! | `astral_web_connections`, `astral_web_connections_refused_total` | open now, and those for which there was no place |
//! | `astral_web_directory_failures_total` | times that the directory could not be written |

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::catalog::Catalog;

/// Label pairs; every value is one of a few.
type Labels = Vec<(&'static str, String)>;

/// Counters, each shared with the registry that is made when somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    requests: Family<Labels, Counter>,
    submissions: Family<Labels, Counter>,
    pub(crate) limited: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    directory_failures: Counter,
}

impl Metrics {
    pub(crate) fn directory_failures(&self) -> Counter {
        self.directory_failures.clone()
    }

    pub(crate) fn answered(&self, area: &'static str, status: u16) {
        let labels = vec![("area", area.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn submitted(&self, kind: &'static str, status: u16) {
        let labels = vec![("kind", kind.to_owned()), ("status", status.to_string())];
        self.submissions.get_or_create(&labels).inc();
    }

    /// All of it as text; `None` cannot happen with names as they are.
    pub(crate) fn text(&self, catalog: &Catalog) -> Option<String> {
        let mut registry = Registry::with_prefix("astral_web");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "Version of the program", Info::new(version));
        self.gauges(&mut registry, catalog);
        registry.register(
            "requests",
            "Answers by area and status",
            self.requests.clone(),
        );
        registry.register(
            "submissions",
            "Records that were sent, by kind and the status of their answer",
            self.submissions.clone(),
        );
        registry.register(
            "limited",
            "Requests that were refused since their caller asks too much",
            self.limited.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections for which there was no place",
            self.connections_refused.clone(),
        );
        registry.register(
            "directory_failures",
            "Times that the directory could not be written",
            self.directory_failures.clone(),
        );
        let mut text = String::new();
        encode(&mut text, &registry).ok()?;
        Some(text)
    }

    fn gauges(&self, registry: &mut Registry, catalog: &Catalog) {
        let mut gauge = |name: &str, help: &str, count: usize| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        gauge("nodes", "Live node records", catalog.nodes.len());
        let supernodes = catalog.nodes.ranked(1).count();
        gauge("supernodes", "Live records of supernodes", supernodes);
        gauge(
            "streams",
            "Live stream records, unlisted ones too",
            catalog.streams.len(),
        );
        let remembered: Family<Labels, Gauge> = Family::default();
        for (kind, count) in [
            ("node", catalog.nodes.marks()),
            ("stream", catalog.streams.marks()),
        ] {
            let labels = vec![("kind", kind.to_owned())];
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            remembered.get_or_create(&labels).set(count);
        }
        registry.register(
            "remembered",
            "Ids whose highest seq is remembered",
            remembered,
        );
    }
}
