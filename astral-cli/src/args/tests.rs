//! What can be said, and that each command's help teaches.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let code = |words: &[&str]| {
        let words = std::iter::once(&"astral").chain(words);
        Args::try_parse_from(words).unwrap_err().exit_code()
    };
    assert_eq!(code(&["dance"]), 2);
    assert_eq!(code(&["forget", "not-a-uuid"]), 2);
    assert_eq!(code(&["publish", "x", "--loop"]), 2);
    assert_eq!(code(&["watch", "x", "--print-url", "--output", "-"]), 2);
    assert_eq!(code(&[]), 2);
    assert_eq!(code(&["--help"]), 0);
}

#[test]
fn global_options_stand_anywhere() {
    let args = Args::try_parse_from(["astral", "streams", "--json", "--node", "box:1"]);
    let args = args.unwrap();
    assert!(args.global.json);
    assert_eq!(args.global.choice().node.as_deref(), Some("box:1"));
    let failure = Args::try_parse_from(["astral", "--version"]).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::DisplayVersion);
}
