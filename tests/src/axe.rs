//! axe-core 4.14.1 (`vendor/axe.min.js`, MPL-2.0): what keeps people off a page.
//!
//! Only what its makers call serious or critical fails a test.

use serde_json::Value;

use crate::cdp::Browser;

const AXE: &str = include_str!("../vendor/axe.min.js");

/// What axe found that people cannot work around: rule, and where.
const SERIOUS: &str = "axe.run().then((found) => found.violations
  .filter((violation) => ['serious', 'critical'].includes(violation.impact))
  .map(({id, nodes}) => `${id}: ${nodes.map((node) => node.target.join(' ')).join(', ')}`))";

/// Runs axe on the page as it is; panics with what it found.
pub async fn check(browser: &mut Browser, name: &str) {
    let _: Value = browser.evaluate(&format!("{AXE}; null")).await;
    let serious: Vec<String> = browser.evaluate(SERIOUS).await;
    assert!(serious.is_empty(), "{name}: {serious:#?}");
}
