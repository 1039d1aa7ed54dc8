//! `log::info!` and its kin: operational lines of any thread, through the same writer as the mail log.

use std::{sync::Arc, time::SystemTime};

use super::{
    line::{Format, Line},
    shelf::Shelves,
};

pub struct Operations {
    shelves: Arc<Shelves>,
    format: Format,
}

impl Operations {
    pub fn new(shelves: Arc<Shelves>, format: Format) -> Self {
        Self { shelves, format }
    }
}

impl log::Log for Operations {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // What rustls has to say of peers, they could have it say without end; each of it is counted and logged as a finding.
        let most = match metadata.target().starts_with("rustls") {
            true => log::max_level().min(log::LevelFilter::Error),
            false => log::max_level(),
        };
        metadata.level() <= most
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Formatted before the shelf is held: a Display may be slow, or log itself.
        let message = record.args().to_string();
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let Some(mut pending) = self.shelves.open() else {
            return;
        };
        let mut line = Line::begin(
            &mut pending,
            self.format,
            wall.as_micros() as u64,
            level(record.level()),
            None,
        );
        line.bytes("message", message.as_bytes());
        line.end();
        drop(pending);
        self.shelves.filled();
    }

    fn flush(&self) {}
}

fn level(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    }
}
