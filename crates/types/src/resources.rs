//! What a machine has, and how a node divides it among its roles.

use crate::{Ppm, Role, schema};

schema! {
    /// What a node declares to have. Informative: nothing on the ledger is paid by it.
    #[derive(Copy, Default)]
    pub struct Resources {
        /// Processor cores.
        1 => cpu_cores: u32,
        /// Main memory in GiB.
        2 => memory_gb: u32,
        /// Number of GPUs.
        3 => gpu_count: u32,
        /// Memory of each GPU in GiB.
        4 => gpu_memory_gb: u32,
        /// Disk space in GiB.
        5 => storage_gb: u32,
        /// Network bandwidth in Mbit/s.
        6 => network_bandwidth_mbps: u32,
    }

    /// What one role may use of the node's resources.
    #[derive(Copy)]
    pub struct Allocation {
        /// The role.
        1 => role: Role,
        /// Processor cores.
        2 => cpu_cores: u32,
        /// Main memory in GiB.
        3 => memory_gb: u32,
        /// Share of the GPUs.
        4 => gpu_usage: Ppm,
        /// Share of the network bandwidth.
        5 => network_usage: Ppm,
    }
}
