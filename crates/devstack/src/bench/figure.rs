//! A measured figure and how it is shown.

use std::fmt::Write;

use serde::Serialize;

/// Several runs of one measurement.
#[derive(Serialize)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_reach: Option<&'static str>,
    median: f64,
    min: f64,
    max: f64,
    runs: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(
        name: &str,
        unit: &'static str,
        to_reach: Option<&'static str>,
        runs: Vec<f64>,
    ) -> Self {
        let [min, median, max] = [0.0, 0.5, 1.0].map(|share| percentile(&runs, share));
        Self { name: name.to_owned(), unit, to_reach, median, min, max, runs }
    }
}

/// The value that `share` (0 to 1) of all are not above; 0 without any.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// All of them under a title, one line each.
pub(crate) fn table(title: &str, figures: &[Figure]) -> String {
    let wide = figures.iter().map(|f| f.name.len()).max().unwrap_or_default().max(title.len());
    let mut table = format!("\n{title:wide$}  {:>10}  {:>22}  {:5}  to reach\n", "median", "spread", "unit");
    for figure in figures {
        let Figure { name, unit, median, min, max, .. } = figure;
        let spread = format!("{min:.2} to {max:.2}");
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{name:wide$}  {median:>10.2}  {spread:>22}  {unit:5}  {}",
            figure.to_reach.unwrap_or("")
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| percentile(&hundred, share)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
