//! "Did you mean": the known names nearest to one that is unknown.

/// Most names to offer.
const OFFERED_MAX: usize = 3;

/// The names nearest to `wanted`, best first, at most three; none if all are far off.
///
/// A name is near if it begins with what was typed, contains it, or is at most a
/// third of its letters (at least one) of typing errors away.
pub(crate) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|name| Some((rank(&wanted, &name.to_lowercase())?, name)))
        .collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(OFFERED_MAX);
    near.into_iter().map(|(_, name)| name).collect()
}

/// Words to put behind "unknown …"; empty if nothing is near.
pub(crate) fn hint<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(wanted, known);
    match near.as_slice() {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(", ")),
    }
}

/// How near `name` is, smaller is nearer; none if it is not near.
fn rank(wanted: &str, name: &str) -> Option<usize> {
    let errors = distance(wanted, name);
    let allowed = (wanted.chars().count() / 3).max(1);
    if errors <= allowed {
        return Some(errors);
    }
    let long_enough = wanted.chars().count() >= 2;
    (long_enough && name.contains(wanted)).then_some(allowed + 1)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other:
/// optimal string alignment.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_counted() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("show", "show"), 0);
        assert_eq!(distance("show", "shwo"), 1);
        assert_eq!(distance("my-show", "my-shows"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_names_come_first_and_far_ones_not_at_all() {
        let known = ["my-show", "my-shows", "your-show", "concert"];
        assert_eq!(nearest("my-shwo", known), ["my-show", "my-shows"]);
        assert_eq!(nearest("My-Show", known)[0], "my-show");
        assert_eq!(nearest("show", known), ["my-show", "my-shows", "your-show"]);
        assert!(nearest("zebra", known).is_empty());
        assert_eq!(hint("concrt", known), "; did you mean concert?");
        assert_eq!(hint("zebra", known), "");
    }
}
