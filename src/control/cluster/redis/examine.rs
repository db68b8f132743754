//! What `polycast doctor` reports of the engine.

use super::connect::{draw, login};
use super::link::{REQUEST, RequestFailure};
use super::primary::{self, Primary};
use super::script::{Keys, Known, SCRIPTS, number};
use crate::config::Cluster;
use std::fmt::Write;
use std::time::Instant;
use tokio::task::LocalSet;

/// Logs in at the engine once and reports what it has and what it lacks, in lines of text. The
/// second value says whether a node could use it.
pub(crate) fn examine(cluster: &Cluster) -> (String, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut report = String::new();
    let examined = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, examined(cluster, &mut report)),
        Err(error) => Err(error.to_string()),
    };
    let is_usable = examined.is_ok();
    if let Err(problem) = examined {
        let _ = writeln!(report, "engine: {problem}");
    }
    (report, is_usable)
}

async fn examined(cluster: &Cluster, report: &mut String) -> Result<(), String> {
    let login = login(cluster).map_err(|error| error.to_string())?;
    let keys = Keys::new(&cluster.name);
    let found = primary::find(cluster, &login, &keys).await;
    let mut primary =
        found.map_err(|failure| format!("cannot be reached or refuses us: {failure}"))?;
    let _ = writeln!(report, "engine: {} at {}", primary.info.product(), primary.address);
    if let Some(problem) = primary.info.problem(cluster.kind()) {
        return Err(problem);
    }
    for warning in primary.info.warnings() {
        let _ = writeln!(report, "engine: warning: {warning}");
    }
    let began = Instant::now();
    let bytes = log_bytes(&mut primary, &keys, cluster).await;
    let bytes = bytes.map_err(|failure| format!("the log cannot be used: {failure}"))?;
    let ms = began.elapsed().as_micros() as f64 / 1000.0;
    let max = cluster.log_bytes;
    let _ = writeln!(report, "engine: the log has {bytes} of {max} bytes; asked in {ms} ms");
    Ok(())
}

/// Does what a node does when it begins. Returns the size of the log.
async fn log_bytes(
    primary: &mut Primary,
    keys: &Keys,
    cluster: &Cluster,
) -> Result<u64, RequestFailure> {
    let attach = keys.attach(Known::default(), primary.info.run_id(), draw()?);
    let mut pipeline = redis::pipe();
    for script in SCRIPTS.all() {
        pipeline.add_command(script.load());
    }
    pipeline.add_command(attach).add_command(keys.expire(cluster));
    pipeline.cmd("XREAD").arg("COUNT").arg(1).arg("STREAMS").arg(&keys.log).arg("0-0");
    let mut bytes = 0;
    for (index, answer) in primary.link.ask_all(&pipeline, REQUEST).await?.into_iter().enumerate() {
        let answer = answer?;
        if index == SCRIPTS.all().len() + 1 {
            bytes = number(&answer).unwrap_or(0);
        }
    }
    Ok(bytes)
}
