//! Who may ask what: the safety of the local API (DESIGN §8), before any route.
//!
//! Against other *sites* in this machine's browsers, not against this machine's
//! other users (that is `--require-token`). In order: `Host` (421), the asking
//! site (403), the token where it is always needed (401). Whether a route changes
//! something, and so needs the token or the pages' guard value, [`super::routes`] says.

use std::net::SocketAddr;
use std::sync::Arc;

use astral_proto::api::GUARD_HEADER;
use astral_proto::ids::sha256;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tokio::sync::watch;

use super::Caller;
use super::host::{self, Hosts};
use super::links::Links;
use super::problem::Failure;
use crate::config::Config;
use crate::handle::Handle;

/// Which rules a path is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// The watch page; `embed`: to be framed by other sites; `opened`: by another
    /// site's `window.open`, which waits for a word of it.
    Watch { embed: bool, opened: bool },
    /// The pages for the node's owner.
    Page,
    /// What the pages load.
    Assets,
    /// Media for players and from encoders.
    Media,
    /// `/health`.
    Health,
    /// `/ready`.
    Ready,
    /// All else.
    Api,
}

impl Area {
    pub(super) fn of(parts: &Parts) -> Self {
        let path = parts.uri.path();
        let query = parts.uri.query().unwrap_or("");
        let first = path.split('/').nth(1).unwrap_or("");
        let has = |name| query.split('&').any(|p| p.split('=').next() == Some(name));
        match first {
            "watch" => Self::Watch {
                embed: has("embed"),
                opened: has("from"),
            },
            "assets" => Self::Assets,
            "live" | "ingest" => Self::Media,
            _ if path == "/" || path == "/publish" => Self::Page,
            _ if path == "/health" => Self::Health,
            _ if path == "/ready" => Self::Ready,
            _ => Self::Api,
        }
    }
}

/// What a caller has shown; routes find it among the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// Showed the token, or is one of this node's own pages.
    pub(super) trusted: bool,
    /// May be handed a page with the guard value in it.
    pub(super) guard_for_page: bool,
    /// On this machine, as far as can be told.
    pub(super) near: bool,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Admission {
    /// It goes on to its route.
    Go(Access),
    /// It asked what it may do (CORS), and is told.
    Preflight,
}

/// The site that asks.
#[derive(Debug, PartialEq, Eq)]
enum Site {
    /// This node's own pages.
    Own,
    /// One of `--allow-origin`.
    Allowed,
    /// No browser, or a person who typed the address or followed a link to a page.
    None,
}

/// The rules, as configured.
pub(super) struct Guard {
    token: [u8; 32],
    guard: [u8; 32],
    hosts: Hosts,
    public_origin: Option<String>,
    /// Whose origins may change at any time.
    settings: watch::Receiver<Arc<Config>>,
    loopback: bool,
    require_token: bool,
    links: Links,
}

impl Guard {
    /// The rules for a listener at `bound`.
    pub(super) fn new(handle: &Handle, bound: SocketAddr) -> Self {
        let config = handle.config();
        let public_origin = config.public_http.as_deref().and_then(origin_of_url);
        let public_host = public_origin.as_deref().and_then(|origin| {
            let (_, authority) = origin.split_once("://")?;
            host::split(authority).map(|(host, _)| host.to_owned())
        });
        Self {
            token: sha256(handle.token().as_bytes()),
            guard: sha256(handle.guard().as_bytes()),
            hosts: Hosts {
                bound: bound.ip(),
                public: public_host,
            },
            public_origin,
            settings: handle.settings_watch(),
            loopback: bound.ip().to_canonical().is_loopback(),
            require_token: config.require_token,
            links: Links::default(),
        }
    }

    /// The one-time links to this node's pages.
    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// Decides on a request by its head.
    ///
    /// # Errors
    /// 400, 421, 403 or 401, in this order.
    pub(super) fn admit(&self, parts: &Parts, caller: &Caller) -> Result<Admission, Failure> {
        let host = host::asked(parts)?;
        let name = host::split(&host).map_or("", |(name, _)| name);
        if !self.hosts.allows(name, caller.local) {
            return Err(Failure::new(
                StatusCode::MISDIRECTED_REQUEST,
                format!("`{name}` is no name of this node; see --public-http"),
            ));
        }
        let area = Area::of(parts);
        let site = self.site(parts, &host, area)?;
        let asks = parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if site == Site::Allowed && parts.method == Method::OPTIONS && asks {
            return Ok(Admission::Preflight);
        }
        let token = self.token_shown(parts)?;
        let near = self.is_near(parts, name);
        let trusted = token || (site == Site::Own && near && self.guard_shown(parts));
        let is_page = matches!(area, Area::Page | Area::Watch { .. });
        let query = parts.uri.query().unwrap_or("");
        let linked = is_page && parts.method == Method::GET && self.links.spend(query);
        if !trusted && !linked && self.is_closed(area, near) {
            return Err(Failure::unauthorised(
                "this node answers only with its token",
            ));
        }
        let open_pages = near && !self.require_token;
        Ok(Admission::Go(Access {
            trusted,
            guard_for_page: open_pages || token || linked,
            near,
        }))
    }

    /// The origin to name in CORS answers, if it is one of `--allow-origin`.
    pub(super) fn cors(&self, parts: &Parts) -> Option<HeaderValue> {
        let value = parts.headers.get(ORIGIN)?;
        self.allows(value.to_str().ok()?).then(|| value.clone())
    }

    fn allows(&self, origin: &str) -> bool {
        let allowed = self.settings.borrow().origins();
        host::origin(origin).is_some_and(|origin| {
            let mut allowed = allowed.iter().filter_map(|o| host::origin(o));
            allowed.any(|allowed| allowed == origin)
        })
    }

    fn site(&self, parts: &Parts, host: &str, area: Area) -> Result<Site, Failure> {
        let other = |who: &str| {
            Err(Failure::forbidden(format!(
                "{who} may not use this node from a browser; --allow-origin would let it"
            )))
        };
        let fetch_site = header(parts, "sec-fetch-site");
        let mut origins = parts.headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (Some(_), Some(_)) => other("a request with several origins"),
            (Some(origin), None) => {
                let origin = origin.to_str().unwrap_or("");
                let from_here = matches!(fetch_site, None | Some("same-origin" | "none"));
                match () {
                    () if self.allows(origin) => Ok(Site::Allowed),
                    () if self.is_own(origin, host) && from_here => Ok(Site::Own),
                    () => other(&format!("the origin `{origin}`")),
                }
            }
            (None, _) => match fetch_site {
                Some("same-origin") => Ok(Site::Own),
                None | Some("none") => Ok(Site::None),
                Some(_) if is_navigation(parts, area) => Ok(Site::None),
                Some(_) => other("another site"),
            },
        }
    }

    fn is_own(&self, origin: &str, host: &str) -> bool {
        let Some(origin) = host::origin(origin) else {
            return false;
        };
        let of_public = |public: &String| {
            let public_host = public.split_once("://").map(|(_, host)| host);
            let asked = host::origin(&format!("https://{host}"));
            *public == origin && (public_host == Some(host) || asked.as_ref() == Some(public))
        };
        host::origin(&format!("http://{host}")).as_ref() == Some(&origin)
            || self.public_origin.as_ref().is_some_and(of_public)
    }

    /// Whether a right token came along.
    ///
    /// A wrong one is an error even where none is needed: whoever shows one
    /// counts on it. Other schemes than `Bearer` are a proxy's business.
    fn token_shown(&self, parts: &Parts) -> Result<bool, Failure> {
        let Some((scheme, token)) =
            header(parts, AUTHORIZATION.as_str()).and_then(|v| v.split_once(' '))
        else {
            return Ok(false);
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(false);
        }
        if same(&self.token, token.trim()) {
            return Ok(true);
        }
        Err(Failure::unauthorised(
            "this is not the node's token; its ready file has the one of this run",
        ))
    }

    fn guard_shown(&self, parts: &Parts) -> bool {
        header(parts, GUARD_HEADER).is_some_and(|value| same(&self.guard, value))
    }

    /// Whether the caller is on this machine.
    ///
    /// A proxy in front of a loopback listener brings strangers: it shows by the
    /// public name, or by the fields that proxies add.
    fn is_near(&self, parts: &Parts, name: &str) -> bool {
        let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
        self.loopback
            && self.hosts.public.as_deref() != Some(name)
            && !proxied
                .iter()
                .any(|field| parts.headers.contains_key(*field))
    }

    /// Whether nothing of this area is answered without the token.
    fn is_closed(&self, area: Area, near: bool) -> bool {
        match area {
            Area::Media | Area::Health | Area::Assets => false,
            // Without the guard value these are empty forms, which say how to get in.
            Area::Page => false,
            Area::Watch { .. } => self.require_token,
            Area::Ready => !near,
            Area::Api => self.require_token || !near,
        }
    }
}

/// Compares digests, so that neither content nor length can be told by time.
fn same(digest: &[u8; 32], text: &str) -> bool {
    verify_slices_are_equal(digest, &sha256(text.as_bytes())).is_ok()
}

/// Whether the user's browser is going to a page as a whole, by a link or
/// `window.open`, or frames the one page that may be framed.
fn is_navigation(parts: &Parts, area: Area) -> bool {
    let embed = match area {
        Area::Watch { embed, .. } => embed,
        Area::Page => false,
        Area::Assets | Area::Media | Area::Health | Area::Ready | Area::Api => return false,
    };
    let framed = matches!(header(parts, "sec-fetch-dest"), Some("iframe" | "frame"));
    let whole = header(parts, "sec-fetch-dest") == Some("document");
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    reads && header(parts, "sec-fetch-mode") == Some("navigate") && (whole || (embed && framed))
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name)?.to_str().ok()
}

/// The origin of a URL that may go on with a path.
fn origin_of_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    host::origin(&format!("{scheme}://{authority}"))
}
