//! Pages of lists: ordered by name, then id, with a cursor that survives changes.
//!
//! The cursor is the last item's place in the order, not a number of items:
//! what comes or goes between two pages shifts nothing.

use astral_proto::api::{LIMIT_DEFAULT, LIMIT_MAX, List};
use hyper::Uri;
use serde::Deserialize;

use super::extract::query;
use super::problem::Failure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: Option<usize>,
    after: Option<String>,
}

/// The page that `uri` asks for; `place` gives an item's name and id.
///
/// # Errors
/// 422 for a limit outside of 1 to 1,000, or a cursor that this node never gave.
pub(super) fn page<T>(
    items: Vec<T>,
    uri: &Uri,
    place: impl Fn(&T) -> (String, String),
) -> Result<List<T>, Failure> {
    let paging: Paging = query(uri)?;
    let limit = paging.limit.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 || limit > LIMIT_MAX {
        return Err(Failure::unacceptable(format!(
            "`limit` is 1 to {LIMIT_MAX}"
        )));
    }
    let after = paging.after.as_deref().filter(|after| !after.is_empty());
    let after = after.map(read).transpose()?;
    let mut placed: Vec<_> = items.into_iter().map(|item| (place(&item), item)).collect();
    placed.retain(|(place, _)| after.as_ref().is_none_or(|after| place > after));
    placed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let more = placed.len() > limit;
    placed.truncate(limit);
    let next = placed
        .last()
        .filter(|_| more)
        .map(|(place, _)| write(place));
    Ok(List {
        items: placed.into_iter().map(|(_, item)| item).collect(),
        next,
    })
}

/// A cursor: name and id in JSON, in hexadecimal so that it needs no escaping.
fn write(place: &(String, String)) -> String {
    let json = serde_json::to_vec(place).expect("two strings are JSON");
    json.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(cursor: &str) -> Result<(String, String), Failure> {
    let wrong = || Failure::unacceptable("`after` is not a cursor of this list");
    let bytes: Option<Vec<u8>> = cursor
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    serde_json::from_slice(&bytes.ok_or_else(wrong)?).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(items: &[(&str, &str)], query: &str) -> Result<List<(String, String)>, Failure> {
        let items = items
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        let uri = format!("/list?{query}").parse().unwrap();
        page(items.collect(), &uri, Clone::clone)
    }

    #[test]
    fn pages_follow_each_other_though_items_come_and_go() {
        let first = ask(&[("b", "2"), ("a", "1"), ("b", "1")], "limit=2").unwrap();
        assert_eq!(
            first.items,
            [("a".into(), "1".into()), ("b".into(), "1".into())]
        );
        let after = first.next.unwrap();
        let second = ask(
            &[("a", "0"), ("b", "2"), ("c", "\u{76f4}")],
            &format!("limit=2&after={after}"),
        );
        let second = second.unwrap();
        assert_eq!(second.items.len(), 2);
        assert_eq!(second.next, None);
    }

    #[test]
    fn limits_and_cursors_that_make_no_sense_are_422() {
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=-1",
            "after=zz",
            "after=7b",
            "lmit=1",
            "after=%C3%A9",
        ] {
            assert_eq!(ask(&[], wrong).unwrap_err().problem.status, 422, "{wrong}");
        }
        assert_eq!(ask(&[], "limit=1000").unwrap().items.len(), 0);
    }
}
