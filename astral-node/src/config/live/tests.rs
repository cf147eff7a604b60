use super::*;

/// A configuration in which `key` was given by `source`.
fn told(key: &'static str, source: Source) -> Config {
    let mut config = Config::default_in("/d");
    config.sources.insert(key, source);
    config
}

fn patch(key: &str, value: Option<SettingValue>) -> SettingsPatch {
    SettingsPatch([(key.to_owned(), value)].into())
}

fn words_of(text: &str) -> Option<SettingValue> {
    Some(SettingValue::Text(text.to_owned()))
}

/// Every key that can be changed, with a value that is not its default.
fn changes() -> [(&'static str, SettingValue); 6] {
    [
        ("accept_seeds", SettingValue::Text("never".to_owned())),
        (
            "allow_origin",
            SettingValue::List(vec!["https://a".to_owned()]),
        ),
        ("name", SettingValue::Text("one".to_owned())),
        ("supernode", SettingValue::Text("never".to_owned())),
        ("upstream_limit", SettingValue::Number(5_000_000)),
        ("verbosity", SettingValue::Number(2)),
    ]
}

#[test]
fn each_key_is_changed_shown_as_saved_and_reset_to_the_layer_below() {
    for (key, value) in changes() {
        for below in [Source::Default, Source::File] {
            let live = LiveSettings::new(told(key, below), Saved::new());
            let before = live.shown().0[key].clone();
            assert!(before.changeable && before.source == below, "{key}");
            let change = live.check(&patch(key, Some(value.clone()))).unwrap();
            live.apply(change);
            let shown = live.shown().0[key].clone();
            assert_eq!(shown.value.as_ref(), Some(&value));
            assert_ne!(shown.value, before.value);
            assert_eq!(shown.source, Source::Saved);
            let change = live.check(&patch(key, None)).unwrap();
            assert!(change.saved.is_empty());
            live.apply(change);
            assert_eq!(live.shown().0[key], before);
        }
    }
    let can_change = LiveSettings::new(Config::default_in("/d"), Saved::new()).shown();
    let can_change = can_change.0.values().filter(|s| s.changeable).count();
    assert_eq!(can_change, changes().len(), "each has a case");
}

#[test]
fn flag_and_environment_win_over_what_is_saved() {
    for (key, value) in changes() {
        for above in [Source::Flag, Source::Environment] {
            let base = told(key, above);
            let saved = Saved::from([(key.to_owned(), value.clone())]);
            let live = LiveSettings::new(base.clone(), saved);
            assert_eq!(*live.now(), base, "{key}");
            let shown = live.shown().0[key].clone();
            assert!(shown.source == above && !shown.changeable);
            for wish in [Some(value.clone()), None] {
                let error = live.check(&patch(key, wish)).unwrap_err();
                assert!(matches!(error, ChangeError::Overruled { .. }), "{error}");
            }
        }
    }
}

#[test]
fn saved_values_hold_from_the_start_over_file_and_default() {
    for (key, value) in changes() {
        let saved = Saved::from([(key.to_owned(), value.clone())]);
        let live = LiveSettings::new(told(key, Source::File), saved);
        assert_eq!(live.shown().0[key].value, Some(value));
    }
}

#[test]
fn a_change_is_done_as_a_whole_or_not_at_all() {
    let live = LiveSettings::new(Config::default_in("/d"), Saved::new());
    let before = live.shown();
    let mut wish = patch("name", words_of("one"));
    wish.0.insert("upstream_limit".to_owned(), words_of("fast"));
    let error = live.check(&wish).unwrap_err();
    assert!(error.to_string().starts_with("upstream_limit: `fast`"));
    assert_eq!(live.shown(), before);
}

#[test]
fn unknown_fixed_and_unfitting_keys_are_refused_in_words() {
    let live = LiveSettings::new(Config::default_in("/d"), Saved::new());
    let refused = |key: &str, value| live.check(&patch(key, value)).unwrap_err();
    let unknown = refused("upstream-limit", None);
    assert_eq!(unknown, ChangeError::Unknown("upstream-limit".to_owned()));
    let fixed = refused("http", words_of("127.0.0.1:1"));
    assert_eq!(fixed, ChangeError::Fixed("http".to_owned()));
    for (key, value) in [
        ("name", words_of(" ")),
        ("name", Some(SettingValue::Number(1))),
        ("supernode", words_of("maybe")),
        ("upstream_limit", Some(SettingValue::Number(-1))),
        ("verbosity", Some(SettingValue::Number(3))),
        (
            "allow_origin",
            Some(SettingValue::List(vec!["https://a/b".to_owned()])),
        ),
        (
            "allow_origin",
            Some(SettingValue::List(vec!["https://a".to_owned(); 65])),
        ),
    ] {
        let error = refused(key, value);
        assert!(matches!(error, ChangeError::Invalid { .. }), "{error}");
    }
}

#[test]
fn what_an_older_or_newer_version_saved_does_not_stop_the_node() {
    let saved = Saved::from([
        ("colour".to_owned(), SettingValue::Number(1)),
        ("name".to_owned(), SettingValue::Text(String::new())),
        (
            "supernode".to_owned(),
            SettingValue::Text("never".to_owned()),
        ),
    ]);
    let live = LiveSettings::new(Config::default_in("/d"), saved);
    assert_eq!(live.now().name, None);
    assert_eq!(live.now().supernode, crate::Supernode::Never);
}
