//! Processor time of programs with everything that they have started.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;

/// Hundredths of a second, by which Linux tells processor time.
const TICK: Duration = Duration::from_millis(10);

/// Processor time that the processes `roots` and their living descendants have had.
pub(crate) fn used(roots: &[u32]) -> anyhow::Result<Duration> {
    let mut processes = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may have ended meanwhile.
        if let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) {
            processes.insert(id, process(&stat)?);
        }
    }
    let mut ticks = 0;
    let mut found = roots.to_vec();
    while let Some(id) = found.pop() {
        ticks += processes.get(&id).map_or(0, |(_, ticks)| *ticks);
        let children = processes.iter().filter(|(_, (parent, _))| *parent == id);
        found.extend(children.map(|(child, _)| *child));
    }
    Ok(TICK * ticks)
}

/// The parent of a process, and its ticks: fields 4, 14 and 15 after a name in brackets.
fn process(stat: &str) -> anyhow::Result<(u32, u32)> {
    let (_, rest) = stat.rsplit_once(')').context("no name in brackets")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| -> anyhow::Result<u32> {
        Ok(fields.get(number - 3).context("too few fields")?.parse()?)
    };
    Ok((field(4)?, field(14)? + field(15)?))
}
