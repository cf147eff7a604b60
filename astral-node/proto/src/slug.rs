//! Slugs: names of streams for people and URLs (DESIGN §3).

use crate::ids::StreamId;
use crate::limits::NAME_CHARS_MAX;

/// Longest slug made from a name, in characters.
const SLUG_MAX: usize = 64;
/// Characters of the suffix that tells streams of one name apart.
pub const SUFFIX_LEN: usize = 5;
/// Crockford-like base32 alphabet of the suffix, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why a name is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but spaces.
    #[error("a stream's name has 1 to {NAME_CHARS_MAX} characters; this one is empty")]
    Empty,
    /// More than [`NAME_CHARS_MAX`] characters.
    #[error("a stream's name has 1 to {NAME_CHARS_MAX} characters; this one has {0}")]
    TooLong(usize),
    /// Contains a control character.
    #[error("a stream's name has no control characters")]
    Control,
}

/// Checks a stream's name, in any language.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let chars = name.chars().count();
    if name.trim().is_empty() {
        return Err(NameError::Empty);
    }
    if chars > NAME_CHARS_MAX {
        return Err(NameError::TooLong(chars));
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(())
}

/// The suffix of a stream: the first five base32 characters of its id.
pub fn suffix(id: StreamId) -> String {
    let bits = u128::from_be_bytes(*id.0.as_bytes());
    (0..SUFFIX_LEN)
        .map(|i| char::from(BASE32[(bits >> (123 - 5 * i) & 31) as usize]))
        .collect()
}

/// The bare slug of a name: ASCII letters and digits in lower case, all else a
/// single hyphen; `stream~id` if no letter or digit is left.
pub fn slug_of(name: &str, id: StreamId) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if slug.len() >= SLUG_MAX {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let bare = slug.trim_end_matches('-');
    if bare.is_empty() {
        format!("stream~{}", suffix(id))
    } else {
        bare.to_owned()
    }
}

/// The slug that is true of one stream only, whatever others are called.
pub fn full_slug(name: &str, id: StreamId) -> String {
    let slug = slug_of(name, id);
    if slug.contains('~') {
        slug
    } else {
        format!("{slug}~{}", suffix(id))
    }
}

/// Whether `text` names this stream: by its bare slug, its full slug or its id.
pub fn names(text: &str, name: &str, id: StreamId) -> bool {
    text.parse() == Ok(id) || text == slug_of(name, id) || text == full_slug(name, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_made_of_letters_and_digits_of_the_name() {
        let id = StreamId(uuid::Uuid::from_u128(
            0x1234_5678_9abc_def0_1234_5678_9abc_def0,
        ));
        assert_eq!(slug_of("My Show!", id), "my-show");
        assert_eq!(slug_of("  <b>Hi</b>  ", id), "b-hi-b");
        assert_eq!(slug_of("直播", id), format!("stream~{}", suffix(id)));
        assert_eq!(full_slug("My Show", id), format!("my-show~{}", suffix(id)));
        assert_eq!(suffix(id).len(), SUFFIX_LEN);
        assert!(names(&id.to_string(), "My Show", id));
        assert!(names("my-show", "My Show", id));
        assert!(!names("my-shows", "My Show", id));
    }

    #[test]
    fn names_have_1_to_100_characters_of_any_language() {
        assert_eq!(check_name("直播"), Ok(()));
        assert_eq!(check_name("  "), Err(NameError::Empty));
        assert_eq!(check_name(&"x".repeat(101)), Err(NameError::TooLong(101)));
        assert_eq!(check_name("a\nb"), Err(NameError::Control));
    }
}
