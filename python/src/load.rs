//! How busy this machine is. What cannot be known is absent.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use nvml_wrapper::Nvml;
use pyo3::{prelude::*, types::PyDict};
use r3mes_functions::wire::messages::Load;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time between two looks at the load.
const PERIOD: Duration = Duration::from_secs(2);

/// The graphics processors of this machine, all together.
struct Gpus {
    /// Mean share in use, 0 to 1.
    share: Option<f64>,
    /// Bytes in use, of all.
    used: u64,
    /// Bytes of the largest one.
    total: u64,
    /// Free bytes of the one that has most.
    free: u64,
}

/// What is looked at.
struct Meters {
    system: System,
    nvml: Option<Nvml>,
    /// Whether there was a look before, since when the use of the processors counts.
    looked: bool,
}

impl Meters {
    fn new() -> Self {
        Self {
            system: System::new(),
            nvml: Nvml::init().ok(),
            looked: false,
        }
    }

    /// The share of the processors in use since the last look, of which there must have been one.
    fn cpu(&mut self) -> Option<f64> {
        self.system.refresh_cpu_usage();
        let looked = std::mem::replace(&mut self.looked, true);
        looked.then(|| f64::from(self.system.global_cpu_usage()) / 100.0)
    }

    /// Bytes of memory: all, and those available.
    fn memory(&mut self) -> Option<(u64, u64)> {
        self.system.refresh_memory();
        let total = self.system.total_memory();
        (total > 0).then(|| (total, self.system.available_memory()))
    }

    /// Bytes that this process has resident.
    fn own_memory(&mut self) -> Option<u64> {
        let own = sysinfo::get_current_pid().ok()?;
        self.system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[own]),
            true,
            ProcessRefreshKind::nothing().with_memory(),
        );
        self.system.process(own).map(sysinfo::Process::memory)
    }

    fn gpus(&self) -> Option<Gpus> {
        let nvml = self.nvml.as_ref()?;
        let devices = (0..nvml.device_count().ok()?).filter_map(|at| nvml.device_by_index(at).ok());
        let devices: Vec<_> = devices.collect();
        let memories: Vec<_> = devices
            .iter()
            .filter_map(|one| one.memory_info().ok())
            .collect();
        let shares = devices
            .iter()
            .filter_map(|one| one.utilization_rates().ok());
        let shares: Vec<_> = shares.map(|rates| f64::from(rates.gpu) / 100.0).collect();
        Some(Gpus {
            share: (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64),
            used: memories.iter().map(|memory| memory.used).sum(),
            total: memories.iter().map(|memory| memory.total).max()?,
            free: memories.iter().map(|memory| memory.free).max()?,
        })
    }

    fn load(&mut self) -> Load {
        let (cpu, memory, gpus) = (self.cpu(), self.memory(), self.gpus());
        let mut free = BTreeMap::new();
        if let Some(cpu) = cpu {
            free.insert("cpu_cores".into(), cores() * (1.0 - cpu).max(0.0));
        }
        if let Some((_, available)) = memory {
            free.insert("memory".into(), available as f64);
        }
        if let Some(gpus) = &gpus {
            free.insert("gpu_memory".into(), gpus.free as f64);
        }
        Load {
            cpu,
            memory: memory.map(|(total, available)| 1.0 - available as f64 / total as f64),
            gpu: gpus.and_then(|gpus| gpus.share),
            free,
        }
    }
}

fn cores() -> f64 {
    thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// The load from now on, until `stop`.
///
/// # Errors
/// When there is no thread to look at it.
pub(crate) fn watch(stop: CancellationToken) -> io::Result<watch::Receiver<Load>> {
    let (told, load) = watch::channel(Load::default());
    thread::Builder::new()
        .name("r3mes load".into())
        .spawn(move || {
            let mut meters = Meters::new();
            let mut pause = MINIMUM_CPU_UPDATE_INTERVAL;
            while !stop.is_cancelled() && !told.is_closed() {
                told.send_replace(meters.load());
                thread::sleep(pause);
                pause = PERIOD;
            }
        })?;
    Ok(load)
}

/// This machine's figures, for programs in Python.
#[pyclass(frozen)]
pub(crate) struct Machine(Mutex<Meters>);

#[pymethods]
impl Machine {
    #[new]
    fn new() -> Self {
        let mut meters = Meters::new();
        meters.cpu();
        Self(Mutex::new(meters))
    }

    /// `cpu`, `memory` and `gpu` as shares in use, the processors since the last look; `own_memory` and
    /// `gpu_memory` as bytes in use. What is not known is `None`.
    fn look<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (load, own, gpus) = py.detach(|| {
            let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (meters.load(), meters.own_memory(), meters.gpus())
        });
        let seen = PyDict::new(py);
        seen.set_item("cpu", load.cpu)?;
        seen.set_item("memory", load.memory)?;
        seen.set_item("gpu", load.gpu)?;
        seen.set_item("own_memory", own)?;
        seen.set_item("gpu_memory", gpus.map(|gpus| gpus.used))?;
        Ok(seen)
    }

    /// Bytes that this process has resident.
    fn own_memory(&self) -> Option<u64> {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        meters.own_memory()
    }

    /// What this machine has at all, in base units: `memory`, `cpu_cores`, and `gpu_memory` of its largest
    /// graphics processor if it is known.
    fn resources(&self) -> BTreeMap<&'static str, f64> {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = meters.memory().map(|(total, _)| ("memory", total as f64));
        let gpus = meters.gpus().map(|gpus| ("gpu_memory", gpus.total as f64));
        let known = [Some(("cpu_cores", cores())), memory, gpus];
        known.into_iter().flatten().collect()
    }
}
