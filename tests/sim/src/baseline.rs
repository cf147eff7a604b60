//! What a report differs in from the one that was committed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use astral_proto::sim::Report;
use serde_json::Value;

/// What is not kept: it differs in every run in which anything does.
const SECTIONS: [&str; 3] = ["series", "violations", "worst"];

fn path(folder: &Path, report: &Report) -> PathBuf {
    let name = format!("{}-{}.json", report.scenario, report.nodes);
    folder.join("baseline").join(name)
}

/// Keeps a report for later ones to be compared with.
pub fn accept(folder: &Path, report: &Report) -> anyhow::Result<()> {
    let path = path(folder, report);
    let json = serde_json::to_string_pretty(&figures(report)?)? + "\n";
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("making {parent:?}"))?;
    }
    std::fs::write(&path, json).with_context(|| format!("writing {path:?}"))?;
    println!("baseline: {}", path.display());
    Ok(())
}

/// Prints what is different from the report that was kept, if one was.
pub fn compare(folder: &Path, report: &Report) -> anyhow::Result<()> {
    let path = path(folder, report);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    let before: Value = serde_json::from_str(&text).with_context(|| format!("reading {path:?}"))?;
    let after = figures(report)?;
    let mut lines = Vec::new();
    difference("", &before, &after, &mut lines);
    println!("difference to {}:", path.display());
    if lines.is_empty() {
        println!("  none");
    }
    for line in lines {
        println!("  {line}");
    }
    Ok(())
}

fn figures(report: &Report) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(report)?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !SECTIONS.contains(&name.as_str()));
    }
    Ok(value)
}

fn difference(name: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    if before == after {
        return;
    }
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else {
        let change = match (before.as_f64(), after.as_f64()) {
            (Some(old), Some(new)) if old != 0.0 => {
                format!(" ({:+.1} %)", (new / old - 1.0) * 100.0)
            }
            _ => String::new(),
        };
        return lines.push(format!("{name}: {before} -> {after}{change}"));
    };
    let names = old
        .keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)));
    for key in names {
        let missing = Value::Null;
        let (old, new) = (old.get(key), new.get(key));
        let full = if name.is_empty() {
            key.clone()
        } else {
            format!("{name}.{key}")
        };
        difference(
            &full,
            old.unwrap_or(&missing),
            new.unwrap_or(&missing),
            lines,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn difference_names_the_figure_and_by_how_much_it_changed() {
        let before = json!({"gap": {"p99_ms": 200.0}, "served": 1.0});
        let after = json!({"gap": {"p99_ms": 250.0}, "served": 1.0});
        let mut lines = Vec::new();
        difference("", &before, &after, &mut lines);
        assert_eq!(lines, ["gap.p99_ms: 200.0 -> 250.0 (+25.0 %)"]);
    }
}
