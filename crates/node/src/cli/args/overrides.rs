//! Settings that win over the configuration file.

use anyhow::Context;
use clap::Args;

use super::address::node_url;
use crate::config::{Config, Engine};

/// Settings that win over the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Overrides {
    /// RPC of the ledger, over network.rpc of the configuration
    #[arg(long, global = true, env = "R3MES_RPC", value_name = "URL", value_parser = node_url)]
    pub rpc: Option<String>,
    /// Consensus engine of this home's ledger, over services.ledger.engine of the configuration
    #[arg(long, global = true, env = "R3MES_ENGINE", value_name = "NAME")]
    pub engine: Option<Engine>,
    /// Kernel back end: auto, scalar, avx2, avx512, amx or neon; every one gives the same bits
    #[arg(long, global = true, env = "R3MES_KERNELS", value_name = "NAME")]
    pub kernels: Option<String>,
    /// Kernel threads of each process; the result never depends on it
    #[arg(long, global = true, env = "R3MES_THREADS", value_name = "N")]
    pub threads: Option<usize>,
    /// Log level or filter, such as debug or info,r3mes_node=debug
    #[arg(long, global = true, env = "R3MES_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,
}

impl Overrides {
    /// The same flags again, for a process of the same home.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let threads = self.threads.map(|threads| threads.to_string());
        let engine = self.engine.map(|engine| engine.to_string());
        let flags = [
            ("--rpc", &self.rpc),
            ("--engine", &engine),
            ("--kernels", &self.kernels),
            ("--threads", &threads),
            ("--log-level", &self.log_level),
        ];
        let typed = flags
            .into_iter()
            .filter_map(|(flag, value)| Some([flag.to_owned(), value.clone()?]));
        typed.flatten().collect()
    }

    /// The flags that hold on this machine whatever the home. Homes made for a network of their own
    /// are told no more: which ledger they follow, and under which engine, stands in their files.
    pub(crate) fn to_args_of_any_home(&self) -> Vec<String> {
        self.of_any_home().to_args()
    }

    /// Checks the flags that hold whatever the home, before homes are made.
    pub(crate) fn check_of_any_home(&self) -> anyhow::Result<()> {
        self.of_any_home().apply(&mut Config::default())
    }

    fn of_any_home(&self) -> Self {
        Self {
            rpc: None,
            engine: None,
            ..self.clone()
        }
    }

    /// Lays what was typed over a configuration and checks the whole again.
    pub(crate) fn apply(&self, config: &mut Config) -> anyhow::Result<()> {
        if let Some(rpc) = &self.rpc {
            config.network.rpc.clone_from(rpc);
        }
        if let Some(engine) = self.engine {
            let ledger = config.services.ledger.as_mut();
            ledger
                .context("--engine needs a ledger, and the configuration has no services.ledger")?
                .engine = engine;
        }
        if let Some(kernels) = &self.kernels {
            config.compute.kernels.clone_from(kernels);
        }
        if let Some(threads) = self.threads {
            config.compute.threads = threads;
        }
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
        }
        garde::Validate::validate(config).map_err(|report| {
            anyhow::anyhow!(
                "a flag or R3MES_* variable is not valid: {}",
                report.to_string().trim()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_of_another_network_are_told_of_this_machine_only() {
        let typed = Overrides {
            rpc: Some("http://10.0.0.1:26657".into()),
            engine: Some(Engine::Cometbft),
            kernels: Some("scalar".into()),
            threads: Some(2),
            log_level: Some("debug".into()),
        };
        let machine = [
            "--kernels",
            "scalar",
            "--threads",
            "2",
            "--log-level",
            "debug",
        ];
        assert_eq!(typed.to_args_of_any_home(), machine);
        assert_eq!(typed.to_args().len(), 10);
    }

    #[test]
    fn a_log_filter_that_does_not_parse_is_refused_before_anything_runs() {
        let typed = Overrides {
            log_level: Some("a[[".into()),
            ..Overrides::default()
        };
        let refusals = [
            typed.apply(&mut Config::default()),
            typed.check_of_any_home(),
        ];
        for refusal in refusals {
            let refusal = refusal.unwrap_err().to_string();
            assert!(refusal.contains("log.level"), "{refusal}");
        }
    }
}
