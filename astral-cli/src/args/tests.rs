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

/// Each command with the words that call it, `astral` itself first.
fn commands(command: &clap::Command, name: String) -> Vec<(String, clap::Command)> {
    let below = command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help");
    let below = below.flat_map(|sub| commands(sub, format!("{name} {}", sub.get_name())));
    std::iter::once((name.clone(), command.clone()))
        .chain(below)
        .collect()
}

#[test]
fn the_help_of_every_command_says_what_it_is_for_and_gives_examples_of_it() {
    let known = commands(&Args::command(), "astral".to_owned());
    assert!(known.len() > 25);
    for (name, command) in known {
        assert!(command.get_about().is_some(), "{name}");
        let after = command
            .get_after_help()
            .unwrap_or_else(|| panic!("{name}: no examples"));
        let after = after.to_string();
        assert!(after.contains(&name), "{name}: {after}");
        for line in after.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
        for argument in command.get_arguments() {
            let id = argument.get_id();
            assert!(argument.get_help().is_some(), "{name}: {id}");
        }
    }
}

#[test]
fn every_example_is_a_command_that_is_understood() {
    let mut understood = 0;
    for (name, command) in commands(&Args::command(), "astral".to_owned()) {
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        for line in after.lines().filter(|line| line.starts_with("  astral ")) {
            let words = words(line);
            let parsed = Args::try_parse_from(&words);
            assert!(parsed.is_ok(), "{name}: {words:?}: {}", parsed.unwrap_err());
            understood += 1;
        }
    }
    assert!(understood > 40, "{understood}");
}

/// The words of an example as a shell would see them, without the remark behind it.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut spaces) = (None, 0);
    for c in line.trim_start().chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => spaces += 1,
            ('|' | '>', None) => break,
            (c, _) => {
                match spaces {
                    0 => {}
                    1 => words.push(String::new()),
                    _ => break,
                }
                spaces = 0;
                words.last_mut().expect("never empty").push(c);
            }
        }
    }
    words
}
