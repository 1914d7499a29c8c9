//! The page for Prometheus: the name, unit and explanation of each metric.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{Histogram, Metrics, Moment, Route, Stage};

/// All metrics of a server at one moment.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) metrics: Arc<Metrics>,
    pub(super) moment: Moment,
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Writer(encoder);
        self.requests(&mut page)?;
        self.queries(&mut page)?;
        self.services(&mut page)?;
        self.server(&mut page)
    }
}

impl Page {
    fn requests(&self, page: &mut Writer<'_>) -> Result<(), fmt::Error> {
        let metrics = &*self.metrics;
        let by_path = Route::ALL.map(|route| (route.path(), &metrics.requests[route as usize]));
        page.latencies(
            "request",
            "Time from the head of a request to its response.",
            "path",
            &by_path,
        )?;
        let by_stage = Stage::ALL.map(|stage| (stage.name(), &metrics.stages[stage as usize]));
        page.latencies(
            "stage",
            "Time of each stage of the work on a request, or on a batch of several.",
            "stage",
            &by_stage,
        )?;
        page.metric(
            "errors",
            "Requests without a result, by path and code of the error.",
            &metrics.errors,
        )?;
        page.gauge(
            "requests_in_flight",
            "Requests that are read or answered.",
            self.moment.requests_in_flight,
        )?;
        page.metric(
            "requests_limited",
            "Requests for more passages than the limit, which get as many as that.",
            &metrics.requests_limited,
        )
    }

    fn queries(&self, page: &mut Writer<'_>) -> Result<(), fmt::Error> {
        let (metrics, moment) = (&*self.metrics, &self.moment);
        page.metric("queries", "Queries that were answered or failed.", &metrics.queries)?;
        page.metric("queries_failed", "Queries that failed.", &metrics.queries_failed)?;
        page.metric(
            "queries_cut",
            "Queries that were cut to the longest length.",
            &metrics.queries_cut,
        )?;
        page.gauge(
            "queries_in_flight",
            "Queries that are admitted and not answered yet.",
            moment.queries_in_flight,
        )?;
        let waiting = metrics.queries_waiting.load(Ordering::Relaxed);
        page.gauge("queries_waiting", "Queries that wait for a batch of dense or ann.", waiting)?;
        page.metric(
            "batch_queries",
            "Queries in each batch of dense or ann.",
            &metrics.batch_queries,
        )?;
        page.gauge("jobs_waiting", "Jobs that wait for a search thread.", moment.jobs_waiting)
    }

    fn services(&self, page: &mut Writer<'_>) -> Result<(), fmt::Error> {
        let metrics = &*self.metrics;
        page.metric(
            "upstream_calls",
            "Calls of services behind this server, by service and outcome.",
            &metrics.calls,
        )?;
        page.metric(
            "upstream_breaker_open",
            "1 while a service is not called because it fails.",
            &metrics.open_breakers,
        )?;
        page.metric("cache_lookups", "Searches of the cache of web search.", &metrics.lookups)
    }

    fn server(&self, page: &mut Writer<'_>) -> Result<(), fmt::Error> {
        let (metrics, moment) = (&*self.metrics, &self.moment);
        page.gauge("ready", "1 while queries are answered.", usize::from(moment.is_ready))?;
        let (digest, passages) = moment.index.clone().unwrap_or_default();
        page.gauge("index_passages", "Passages in the loaded index.", passages as usize)?;
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("backend", moment.backend),
            ("index_digest", &digest),
        ];
        let mut info = page.0.encode_descriptor(
            "build_info",
            "Version, back end and index of the server; the value is always 1.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1).encode(info.encode_family(&labels)?)?;
        page.metric("reloads", "Attempts to load the index again, by outcome.", &metrics.reloads)?;
        let since = metrics.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = ConstGauge::new(since.as_secs_f64());
        let help = "Time of the start of the server, in seconds since 1970.";
        page.united("start_time", help, &Unit::Seconds, &start)?;
        if let Some(bytes) = super::process::resident_bytes() {
            let help = "Resident memory of the process.";
            page.united("process_resident_memory", help, &Unit::Bytes, &ConstGauge::new(bytes))?;
        }
        if let Some(seconds) = super::process::cpu_seconds() {
            let help = "Processor time of the process.";
            page.united("process_cpu", help, &Unit::Seconds, &ConstCounter::new(seconds))?;
        }
        Ok(())
    }
}

/// Writes metrics with their names and explanations.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn metric(
        &mut self,
        name: &str,
        help: &str,
        metric: &dyn EncodeMetric,
    ) -> Result<(), fmt::Error> {
        if metric.is_empty() {
            return Ok(());
        }
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn united(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        metric: &dyn EncodeMetric,
    ) -> Result<(), fmt::Error> {
        metric.encode(self.0.encode_descriptor(name, help, Some(unit), metric.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) -> Result<(), fmt::Error> {
        self.metric(name, help, &ConstGauge::new(value as i64))
    }

    /// Writes one histogram of durations for each value of a label.
    fn latencies(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        histograms: &[(&'static str, &Histogram)],
    ) -> Result<(), fmt::Error> {
        let unit = Some(&Unit::Seconds);
        let mut family: MetricEncoder<'_> =
            self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (value, histogram) in histograms {
            histogram.encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }
}
