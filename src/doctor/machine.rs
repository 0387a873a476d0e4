//! The machine under the node: room on its disks, open files; and what the node that runs says of itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::{Area, Finding, Node};
use crate::config::defaults;
use crate::data_dir;
use crate::http::{self, ReadyAnswer};
use crate::store::local;

/// How long a running node may take to say whether it is ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks disk, open files and the running node.
pub async fn check(node: &Node, found: &mut Vec<Finding>) {
    disk(node, found);
    open_files(found);
    if node.in_use {
        found.push(running(&node.data).await);
    }
}

/// The directory, or the nearest one above that is there.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn disk(node: &Node, found: &mut Vec<Finding>) {
    const CHECK: &str = "disk";
    let need = node.settings.min_free_mib.unwrap_or(defaults::MIN_FREE_MIB);
    let place = existing(&node.data);
    let shown = place.display();
    found.push(match local::free_bytes(&place).map(|free| free >> 20) {
        Err(e) => Finding::error(Area::Machine, CHECK, format!("{shown}: free space cannot be read: {e}")),
        Ok(free) if free < need => {
            Finding::error(Area::Machine, CHECK, format!("{free} MiB are free on {shown}, {need} MiB are needed"))
                .why("below min_free_mib a node is unready and refuses writes")
                .fix(format!("make room on the file system of {shown}, or lower min_free_mib"))
        }
        Ok(free) if free < need.saturating_mul(2) => {
            let what = format!("{free} MiB are free on {shown}: writes are refused below {need} MiB");
            Finding::warning(Area::Machine, CHECK, what).fix(format!("make room on the file system of {shown}"))
        }
        Ok(free) => Finding::ok(Area::Machine, CHECK, format!("{free} MiB are free on {shown}, {need} MiB are needed")),
    });
}

fn open_files(found: &mut Vec<Finding>) {
    const CHECK: &str = "open-files";
    let (least, enough) = http::open_files();
    let Some(most) = getrlimit(Resource::Nofile).maximum else {
        return found.push(Finding::ok(Area::Machine, CHECK, "open files are not limited"));
    };
    let what = format!("at most {most} files may be open (hard limit of this shell)");
    let fix = format!("ulimit -Hn {enough}, or LimitNOFILE={enough} in the unit of systemd");
    found.push(match most {
        _ if most >= enough => Finding::ok(Area::Machine, CHECK, what),
        _ if most >= least => {
            let why = format!("{enough} are enough for every connection that is taken; with fewer, clients wait");
            Finding::warning(Area::Machine, CHECK, what).why(why).fix(fix)
        }
        _ => {
            let why = format!("log and state need {least}: reads and writes fail without");
            Finding::error(Area::Machine, CHECK, what).why(why).fix(fix)
        }
    });
}

/// What the node that holds the directory says.
async fn running(data: &Path) -> Finding {
    const CHECK: &str = "ready";
    let Some(addr) = data_dir::running_addr(data) else {
        let why = format!("a process holds {} that serves nothing (yet): is it starting?", data.display());
        return Finding::skipped(Area::Node, CHECK, why);
    };
    let asked = async {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        client.get(format!("http://{addr}/readyz")).send().await?.json::<ReadyAnswer>().await
    };
    match asked.await {
        Ok(answer) if answer.ready => Finding::ok(Area::Node, CHECK, format!("runs at http://{addr} and is ready")),
        Ok(answer) => {
            let reasons = answer.reasons.join("; ");
            Finding::warning(Area::Node, CHECK, format!("runs at http://{addr} and is not ready: {reasons}"))
        }
        Err(e) => Finding::error(Area::Node, CHECK, format!("runs, and http://{addr}/readyz does not answer: {e}"))
            .why("a load balancer takes it out, and what is committed may not be published")
            .fix("see its log; if it stands still, kill it and start it again"),
    }
}
