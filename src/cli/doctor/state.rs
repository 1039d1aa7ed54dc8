//! Whether what is learnt can be kept, and the server that shares it answers.

use std::path::Path;
use std::time::Duration;

use super::Point;
use crate::cli::flags::state::Lasting;
use crate::state::Server;

/// Longer than any answer on a network of one's own.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn points(lasting: &Lasting) -> Vec<Point> {
    let file = lasting.file.as_deref().map(file);
    file.into_iter()
        .chain(lasting.server.as_ref().map(server))
        .collect()
}

fn file(path: &Path) -> Point {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    match folder.is_dir() {
        true => Point::good(format!("--state {}: its folder is there", path.display())),
        false => Point::failure(
            format!(
                "--state {}: there is no folder {}",
                path.display(),
                folder.display()
            ),
            "make it, writable for the user that weir runs as (StateDirectory= in the systemd unit)",
        ),
    }
}

fn server(server: &Server) -> Point {
    match server.ping(PATIENCE) {
        Ok(()) => Point::good(format!("--state {server}: answers")),
        Err(error) => Point::warning(
            format!("--state {server}: {error}"),
            "mail goes on without it; look whether it runs, listens on that address, and lets weir in",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn folders_and_servers_are_looked_at() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| file(&place.path().join(path)).level;
        assert_eq!(at("state"), Level::Good);
        assert_eq!(at("missing/state"), Level::Failure);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let point = server(&Server::parse(&url).unwrap());
        assert_eq!(point.level, Level::Warning, "mail goes on without it");
    }
}
