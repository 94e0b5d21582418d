//! Start to ready, and what the API occupies when nobody has asked it anything else.

use std::time::Duration;

use anyhow::{Context, Result};
use devstack::Stack;

use super::figure::Figure;
use super::{API, Plan, milliseconds, process, progress};
use crate::product::Product;

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for run in 0..plan.runs {
        progress(&format!("start {} of {}", run + 1, plan.runs))?;
        let product = Product::start(stack, &plan.listen).await?;
        ready.push(milliseconds(product.start_to_ready));
        tokio::time::sleep(Duration::from_secs(1)).await;
        resident.push(process::resident_mb(product.pid(API).context("the API has no process id")?)?);
        product.stop(stack).await;
    }
    Ok(vec![
        Figure::new("start to ready", "ms", Some("<= 1000"), ready),
        Figure::new("api idle, resident", "MB", Some("<= 40"), resident),
    ])
}
