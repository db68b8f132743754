//! What `polycast doctor` reports of the engine.

use super::super::probe;
use super::connect::{draw, login};
use super::link::{REQUEST, RequestFailure};
use super::page::log_state;
use super::primary::{self, Primary};
use super::rights;
use super::script::{Keys, Known, Outcome, SCRIPTS, number, outcome};
use crate::config::Cluster;
use std::fmt::Write;
use std::time::{Duration, Instant};
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
    let mut primary = match primary::find(cluster, &login, &keys).await {
        Ok(primary) => primary,
        Err(failure) => {
            let is_refused = primary::code(&failure) == "NOPERM";
            let advice = match is_refused {
                true => rights::of_any_server(cluster, &login, &keys).await,
                false => None,
            };
            return Err(match advice {
                Some(advice) => advice,
                None => format!("cannot be reached or refuses us: {failure}"),
            });
        }
    };
    let _ = writeln!(report, "engine: {} at {}", primary.info.product(), primary.address);
    if let Some(problem) = primary.info.problem(cluster.kind()) {
        return Err(problem);
    }
    for warning in primary.info.warnings(cluster.log_bytes) {
        let _ = writeln!(report, "engine: warning: {warning}");
    }
    let missing = rights::missing(&mut primary.link, &keys, cluster).await;
    let missing = missing.map_err(|failure| failure.to_string())?;
    if !missing.is_empty() {
        return Err(rights::advice(cluster, &missing));
    }
    let began = Instant::now();
    let log = log_bytes(&mut primary, &keys, cluster).await;
    let (bytes, epoch) = log.map_err(|failure| format!("the log cannot be used: {failure}"))?;
    let ms = began.elapsed().as_micros() as f64 / 1000.0;
    let max = cluster.log_bytes;
    let _ = writeln!(report, "engine: the log has {bytes} of {max} bytes; asked in {ms} ms");
    let times = measure(&mut primary, &keys, cluster, epoch).await?;
    let _ = writeln!(report, "{}", probe::summary(times));
    Ok(())
}

/// How long each of some entries takes that are stored one after the other.
async fn measure(
    primary: &mut Primary,
    keys: &Keys,
    cluster: &Cluster,
    epoch: u64,
) -> Result<Vec<Duration>, String> {
    let run = draw().map_err(|failure| failure.to_string())?;
    let mut times = Vec::new();
    for number in 0..probe::TRIES {
        let mut pipeline = redis::pipe();
        pipeline.add_command(keys.append(&probe::append(cluster, run, number), epoch, cluster));
        let began = Instant::now();
        let answers = primary.link.ask_all(&pipeline, REQUEST).await;
        times.push(began.elapsed());
        let answers = answers.map_err(|failure| format!("an entry is not stored: {failure}"))?;
        for answer in answers {
            let words = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
            match outcome(answer) {
                Outcome::Stored(_) => {}
                _ if words.is_empty() => return Err("an entry is refused".to_owned()),
                _ => return Err(format!("an entry is refused: {words}")),
            }
        }
    }
    Ok(times)
}

/// Does what a node does when it begins. Returns the size of the log and its epoch.
async fn log_bytes(
    primary: &mut Primary,
    keys: &Keys,
    cluster: &Cluster,
) -> Result<(u64, u64), RequestFailure> {
    let attach = keys.attach(Known::default(), primary.info.run_id(), draw()?);
    let mut pipeline = redis::pipe();
    for script in SCRIPTS.all() {
        pipeline.add_command(script.load());
    }
    pipeline.add_command(attach).add_command(keys.expire(cluster));
    pipeline.cmd("XREAD").arg("COUNT").arg(1).arg("STREAMS").arg(&keys.log).arg("0-0");
    let (mut bytes, mut epoch) = (0, 0);
    for (index, answer) in primary.link.ask_all(&pipeline, REQUEST).await?.into_iter().enumerate() {
        let answer = answer?;
        if index == SCRIPTS.all().len() + 1 {
            bytes = number(&answer).unwrap_or(0);
        } else if index == SCRIPTS.all().len() {
            epoch = log_state(answer).map_or(0, |state| state.epoch);
        }
    }
    Ok((bytes, epoch))
}
