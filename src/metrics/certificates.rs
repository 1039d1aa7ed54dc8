//! Certificates and their reading, as the control thread sees them: no shard counts these.

use super::expose::{head, push_label, sample};

/// What is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// File, and when what is in use of it ends, in seconds since 1970.
    pub ends: Vec<(String, i64)>,
    /// Readings after the one at the start, by result.
    pub passed: u64,
    pub failed: u64,
    /// Whether a file cannot be used now.
    pub failing: bool,
}

/// Name, kind, labels, help.
pub const ROWS: [(&str, &str, &str, &str); 3] = [
    (
        "weir_tls_certificate_end_time_seconds",
        "gauge",
        "certificate",
        "When each certificate in use ends, in seconds since 1970. Alert where less than 1209600 (14 days) are left after time().",
    ),
    (
        "weir_tls_reloads_total",
        "counter",
        "result",
        "Readings of certificates, keys and CA files after a change or SIGHUP: passed, or failed, after which all stays as it was and is tried again every 5s.",
    ),
    (
        "weir_tls_reload_failing",
        "gauge",
        "",
        "1 while a file of --tls-cert and its like cannot be used and what was read before stays in use; the log names it.",
    ),
];

/// Appends them.
pub fn render(out: &mut String, certificates: &Certificates) {
    let labelled = |key: &str, value: &str| {
        let mut labels = String::new();
        push_label(&mut labels, key, value);
        labels
    };
    for (name, kind, label, help) in ROWS {
        head(out, name, kind, help);
        match label {
            "certificate" => certificates
                .ends
                .iter()
                .for_each(|(file, end)| sample(out, name, &labelled(label, file), end)),
            "result" => {
                sample(out, name, &labelled(label, "passed"), certificates.passed);
                sample(out, name, &labelled(label, "failed"), certificates.failed);
            }
            _ => sample(out, name, "", u8::from(certificates.failing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shown() {
        let certificates = Certificates {
            ends: vec![("/etc/weir/mx.crt".into(), 1_800_000_000)],
            passed: 3,
            failed: 1,
            failing: true,
        };
        let mut out = String::new();
        render(&mut out, &certificates);
        for line in [
            "weir_tls_certificate_end_time_seconds{certificate=\"/etc/weir/mx.crt\"} 1800000000",
            "weir_tls_reloads_total{result=\"passed\"} 3",
            "weir_tls_reloads_total{result=\"failed\"} 1",
            "weir_tls_reload_failing 1",
        ] {
            assert!(out.lines().any(|shown| shown == line), "{line} in {out}");
        }
        assert_eq!(out.matches("# TYPE").count(), ROWS.len());
    }
}
