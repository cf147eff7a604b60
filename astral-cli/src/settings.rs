//! `settings`: what the running node is told, and changing it.

use std::collections::BTreeMap;

use astral_proto::api::settings::{Setting, SettingValue, Settings, SettingsPatch};
use http::Method;
use serde_json::Value;

use crate::args::Settings as Args;
use crate::client::decode;
use crate::commands::{Session, json};
use crate::failure::Failure;
use crate::{suggest, tables, term};

/// Runs the command.
pub(crate) async fn run(session: &Session, args: &Args) -> Result<(), Failure> {
    let (settings, raw): (Settings, Value) = session.api.get(&["settings"]).await?;
    let Some(key) = &args.key else {
        return match session.global.json {
            true => json(&raw),
            false => tables::settings(&settings).print(),
        };
    };
    let (key, setting) = find(&settings, key)?;
    if args.values.is_empty() && !args.unset {
        return match session.global.json {
            true => json(&raw[key]),
            false => term::line(&tables::printable(&shown(setting))),
        };
    }
    let value = match args.unset {
        true => None,
        false => Some(value_like(setting.value.as_ref(), key, &args.values)?),
    };
    let patch = SettingsPatch(BTreeMap::from([(key.to_owned(), value)]));
    let raw = session
        .api
        .send(Method::PATCH, &["settings"], &patch)
        .await?;
    if session.global.json {
        return json(&raw);
    }
    let settings: Settings = decode(&raw)?;
    if let Some(setting) = settings.0.get(key) {
        let (value, source) = (shown(setting), tables::source(setting.source));
        session.note(&format!("{key} is now {value} ({source})"));
    }
    Ok(())
}

/// A setting by its key, which may be written like the flag.
fn find<'a>(settings: &'a Settings, key: &str) -> Result<(&'a str, &'a Setting), Failure> {
    let wanted = key.trim_start_matches('-').replace('-', "_");
    let found = settings.0.iter().find(|(known, _)| **known == wanted);
    found
        .map(|(key, setting)| (key.as_str(), setting))
        .ok_or_else(|| {
            let hint = suggest::hint(&wanted, settings.0.keys().map(String::as_str));
            Failure::NotFound(format!(
                "no setting `{key}` is known{hint}; `astral settings` lists those that are"
            ))
        })
}

/// A value as people write it; `-` if there is none.
fn shown(setting: &Setting) -> String {
    let value = setting.value.as_ref().map(SettingValue::to_string);
    value
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| tables::NONE.to_owned())
}

/// What was typed, as a value of the kind that holds now.
fn value_like(
    now: Option<&SettingValue>,
    key: &str,
    typed: &[String],
) -> Result<SettingValue, Failure> {
    if let Some(SettingValue::List(_)) = now {
        // An empty word empties the list.
        let words = typed.iter().filter(|word| !word.is_empty());
        return Ok(SettingValue::List(words.cloned().collect()));
    }
    let [word] = typed else {
        let words = format!("{key} takes one value; write several words in quotes");
        return Err(Failure::Usage(words));
    };
    let text = || SettingValue::Text(word.clone());
    Ok(match now {
        Some(SettingValue::Number(_)) => word.parse().map_or_else(|_| text(), SettingValue::Number),
        Some(SettingValue::Switch(_)) => word.parse().map_or_else(|_| text(), SettingValue::Switch),
        Some(SettingValue::Text(_) | SettingValue::List(_)) | None => text(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    fn args(key: &str, values: &[&str], unset: bool) -> Args {
        Args {
            key: Some(key.to_owned()),
            values: values.iter().map(ToString::to_string).collect(),
            unset,
        }
    }

    fn answer() -> Value {
        let setting =
            |value: Value| json!({"value": value, "source": "default", "changeable": true});
        json!({"upstream_limit": setting(json!("learnt")), "verbosity": setting(json!(0)),
            "allow_origin": setting(json!([])), "name": setting(Value::Null)})
    }

    #[tokio::test]
    async fn what_is_typed_becomes_a_value_of_the_settings_own_kind() {
        let cases = [
            (
                args("upstream-limit", &["20mbit"], false),
                json!({"upstream_limit": "20mbit"}),
            ),
            (args("verbosity", &["-1"], false), json!({"verbosity": -1})),
            (args("name", &["7"], false), json!({"name": "7"})),
            (
                args("allow_origin", &["https://a", "https://b"], false),
                json!({"allow_origin": ["https://a", "https://b"]}),
            ),
            (
                args("allow_origin", &[""], false),
                json!({"allow_origin": []}),
            ),
            (args("name", &[], true), json!({"name": null})),
        ];
        for (args, body) in cases {
            let fake = Fake::start(|_| (200, answer())).await;
            run(&fake.session(&["--quiet"]), &args).await.unwrap();
            let patch = fake.seen().pop().unwrap();
            assert_eq!(patch.line, "PATCH /api/v1/settings");
            assert_eq!(serde_json::from_slice::<Value>(&patch.body).unwrap(), body);
        }
    }

    #[tokio::test]
    async fn unknown_keys_get_the_nearest_and_single_values_stay_single() {
        let fake = Fake::start(|_| (200, answer())).await;
        let session = fake.session(&["--quiet"]);
        let failure = run(&session, &args("upstream_limt", &[], false))
            .await
            .unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        assert!(
            failure.to_string().contains("did you mean upstream_limit?"),
            "{failure}"
        );
        let failure = run(&session, &args("name", &["a", "b"], false))
            .await
            .unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(fake.seen().iter().all(|seen| seen.line.starts_with("GET")));
    }
}
