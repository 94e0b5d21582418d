//! What is wrong with a plan: a large table read from end to end, or far more rows met than the answer needs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::log::Ran;

/// What a statement may cost, by the rows its caller asked for.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Rows that any one scan may meet, those it throws away included.
    pub rows: f64,
    /// Blocks of 8 KB that the whole statement may touch. Index entries that are walked over without being met as rows
    /// show here only.
    pub blocks: f64,
}

impl Budget {
    /// For a page of this many rows.
    pub const fn page(limit: u32) -> Self {
        Self { rows: 20.0 * limit as f64, blocks: 40.0 * limit as f64 }
    }
    /// For statements whose answer is as long as a mailbox: an index is enough.
    pub const ANY: Self = Self { rows: f64::MAX, blocks: f64::MAX };
}

/// The faults of one statement, each as a sentence; `large` names the tables no scan may run through.
pub fn faults(ran: &Ran, large: &BTreeSet<String>, budget: Budget) -> Vec<String> {
    let mut found = Vec::new();
    let blocks = number(&ran.plan, "Shared Hit Blocks") + number(&ran.plan, "Shared Read Blocks");
    if blocks > budget.blocks {
        found.push(format!("{blocks} blocks touched, {} allowed", budget.blocks));
    }
    node(&ran.plan, large, budget, &mut found);
    found
}

fn node(plan: &Value, large: &BTreeSet<String>, budget: Budget, found: &mut Vec<String>) {
    if number(plan, "Actual Loops") == 0.0 {
        return;
    }
    let kind = plan["Node Type"].as_str().unwrap_or_default();
    let table = plan["Relation Name"].as_str().unwrap_or_default();
    if kind == "Seq Scan" && large.contains(table) {
        found.push(format!("all of {table} is read"));
    }
    if kind.ends_with("Scan") {
        let met: f64 = ["Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"]
            .iter()
            .map(|name| number(plan, name))
            .sum();
        let met = met * number(plan, "Actual Loops");
        if met > budget.rows {
            let by = plan["Index Name"].as_str().unwrap_or_default();
            let alias = plan["Alias"].as_str().unwrap_or_default();
            found.push(format!(
                "{kind} of {table} {alias} by {by:?} meets {met} rows, {} allowed",
                budget.rows
            ));
        }
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        node(child, large, budget, found);
    }
}

fn number(plan: &Value, name: &str) -> f64 {
    plan[name].as_f64().unwrap_or(0.0)
}
