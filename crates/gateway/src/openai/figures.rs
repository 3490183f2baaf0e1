use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Instant,
};

use axum::http::StatusCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
};
use r3mes_http::metrics::Metrics;
use r3mes_inference::Engine;

/// What is counted of the API.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    requests: Family<Outcome, Counter>,
    open: Gauge,
    duration: Histogram,
    first_byte: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    endpoint: &'static str,
    status: u32,
}

impl Figures {
    pub(super) fn new(metrics: &Metrics) -> Self {
        // From 2 ms to 65 s.
        let seconds = || Histogram::new(exponential_buckets(0.002, 2.0, 16));
        let figures = Self {
            requests: Family::default(),
            open: Gauge::default(),
            duration: seconds(),
            first_byte: seconds(),
        };
        let (requests, open) = (figures.requests.clone(), figures.open.clone());
        let (duration, first_byte) = (figures.duration.clone(), figures.first_byte.clone());
        metrics.register(|registry| {
            let help = "Requests answered, by endpoint and status";
            registry.register("api_requests", help, requests);
            registry.register("api_open_requests", "Requests being answered", open);
            let help = "Time from a request to the end of its answer";
            registry.register("api_request_duration_seconds", help, duration);
            let help = "Time from a request to the first byte of its answer";
            registry.register("api_first_byte_seconds", help, first_byte);
        });
        figures
    }

    /// Counts a request until the last clone of what this returns is dropped.
    pub(super) fn open(&self, endpoint: &'static str) -> Arc<Open> {
        self.open.inc();
        Arc::new(Open {
            figures: self.clone(),
            endpoint,
            since: Instant::now(),
            status: AtomicU16::new(CLIENT_CLOSED),
        })
    }
}

/// What proxies call a client that went away before the answer began.
const CLIENT_CLOSED: u16 = 499;

/// A request being answered.
#[derive(Debug)]
pub(super) struct Open {
    figures: Figures,
    endpoint: &'static str,
    since: Instant,
    status: AtomicU16,
}

impl Open {
    /// The answer begins.
    pub(super) fn begin(&self, status: StatusCode) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.figures.first_byte.observe(seconds);
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.figures.open.dec();
        let seconds = self.since.elapsed().as_secs_f64();
        self.figures.duration.observe(seconds);
        let outcome = Outcome {
            endpoint: self.endpoint,
            status: u32::from(self.status.load(Ordering::Relaxed)),
        };
        self.figures.requests.get_or_create(&outcome).inc();
    }
}

/// An engine's load, read when it is asked for.
pub(super) struct EngineFigures(pub(super) Arc<dyn Engine>);

impl fmt::Debug for EngineFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineFigures")
    }
}

impl Collector for EngineFigures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let load = self.0.load();
        let gauges = [
            (
                "engine_running_requests",
                "Requests being generated",
                load.running,
            ),
            (
                "engine_waiting_requests",
                "Requests in the queue",
                load.waiting,
            ),
            (
                "engine_slots",
                "Requests generated at once at most",
                load.slots,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value as i64);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let counters = [
            (
                "engine_prompt_tokens",
                "Prompt tokens computed",
                load.prompt_tokens,
            ),
            (
                "engine_generated_tokens",
                "Tokens generated",
                load.generated_tokens,
            ),
            (
                "engine_finished_requests",
                "Requests that ended",
                load.finished,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
