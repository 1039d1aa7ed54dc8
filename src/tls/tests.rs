//! What is made of files shakes hands: with clients of this library, and with OpenSSL's.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup, ProtocolVersion,
    ServerConnection, SignatureAlgorithm,
};

use super::fixtures::{Authority, Folder, ecdsa, rsa};
use super::*;

const NAME: &str = "mx.example";

/// One host's TLS, as client and as server.
struct Bench {
    folder: Folder,
    settings: Settings,
}

impl Bench {
    fn fresh() -> Bench {
        let folder = Folder::fresh();
        let mut settings = Settings::default();
        settings
            .server
            .pairs
            .push(folder.pair("ecdsa", &ecdsa(&[NAME])));
        Bench { folder, settings }
    }

    fn material(&self) -> Material {
        Material::read(self.settings.clone()).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn server(&self) -> ServerTls {
        self.material()
            .server_tls()
            .expect("there is a certificate")
    }

    /// A client that is content with any certificate.
    fn client(&self) -> UpstreamTls {
        self.client_who(UpstreamMode::Require, NAME)
    }

    fn client_who(&self, mode: UpstreamMode, name: &str) -> UpstreamTls {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        self.material().upstream_tls(&UpstreamWish {
            mode,
            implicit: false,
            name,
        })
    }
}

/// A whole handshake and what comes right after it.
fn shake(
    server: &ServerTls,
    client: &UpstreamTls,
) -> Result<(ServerConnection, ClientConnection), Error> {
    let mut server = ServerConnection::new(Arc::clone(&server.config)).unwrap();
    let mut client =
        ClientConnection::new(Arc::clone(&client.config), client.name.clone()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok((server, client))
}

fn kind(server: &ServerTls, client: &UpstreamTls) -> HandshakeKind {
    let (server, _) = shake(server, client).unwrap();
    server.handshake_kind().expect("it is over")
}

#[test]
fn sessions_are_resumed_over_shards_rotations_and_new_certificates() {
    let bench = Bench::fresh();
    let client = bench.client();
    let mut material = bench.material();
    let server = material.server_tls().unwrap();
    let other_shard = server.clone();
    assert_eq!(kind(&server, &client), HandshakeKind::Full);
    assert_eq!(kind(&other_shard, &client), HandshakeKind::Resumed);
    assert!(material.rotate());
    let rotated = material.server_tls().unwrap();
    assert_eq!(kind(&rotated, &client), HandshakeKind::Resumed);
    bench.folder.pair("ecdsa", &ecdsa(&[NAME]));
    assert!(material.read_again(false, 1_800_000_000).unwrap().server);
    let renewed = material.server_tls().unwrap();
    assert_eq!(kind(&renewed, &client), HandshakeKind::Resumed);
    let another_process = bench.server();
    assert_eq!(kind(&another_process, &client), HandshakeKind::Full);
}

#[test]
fn hosts_with_one_file_of_keys_resume_each_others_sessions() {
    let mut bench = Bench::fresh();
    let keys = bench.folder.write("keys", &"5f".repeat(32));
    bench.settings.server.tickets = Some(keys);
    let client = bench.client();
    assert_eq!(kind(&bench.server(), &client), HandshakeKind::Full);
    assert_eq!(kind(&bench.server(), &client), HandshakeKind::Resumed);
}

#[test]
fn a_new_connection_sees_the_new_certificate() {
    let bench = Bench::fresh();
    let mut material = bench.material();
    let new = ecdsa(&[NAME]);
    bench.folder.pair("ecdsa", &new);
    let shown = |material: &Material| {
        let server = material.server_tls().unwrap();
        let (_, client) = shake(&server, &bench.client()).unwrap();
        client.peer_certificates().unwrap()[0].to_vec()
    };
    assert_ne!(shown(&material), new.certificate_der());
    material.read_again(false, 1_800_000_000).unwrap();
    assert_eq!(shown(&material), new.certificate_der());
}

#[test]
fn the_hybrid_key_exchange_is_spoken_where_both_want_it() {
    let mut bench = Bench::fresh();
    let plain = bench.server();
    bench.settings.server.hybrid = true;
    bench.settings.upstream.hybrid = true;
    let group = |server: &ServerTls, client: &UpstreamTls| {
        let (server, _) = shake(server, client).unwrap();
        server.negotiated_key_exchange_group().unwrap().name()
    };
    let client = bench.client();
    assert_eq!(group(&bench.server(), &client), NamedGroup::X25519MLKEM768);
    assert_eq!(group(&plain, &client), NamedGroup::X25519);
    bench.settings.upstream.hybrid = false;
    let client = bench.client();
    assert_eq!(group(&bench.server(), &client), NamedGroup::X25519);
}

#[test]
fn the_cheaper_cipher_suite_is_chosen_where_the_client_can() {
    let server = Bench::fresh().server();
    for (arguments, want) in [
        (&["-tls1_3"][..], "TLS_AES_128_GCM_SHA256"),
        (&["-tls1_2"], "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (
            &["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
    ] {
        let said = openssl(&server, arguments);
        assert!(
            said.contains(&format!("Cipher is {want}")),
            "{want}: {said}"
        );
    }
}

#[test]
fn the_oldest_version_is_held_to() {
    let mut bench = Bench::fresh();
    let mut client = bench.client();
    let provider = provider(false);
    let old = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(lenient::AnyServer(provider)))
        .with_no_client_auth();
    client.config = Arc::new(old);
    let (server, _) = shake(&bench.server(), &client).unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(kind(&bench.server(), &client), HandshakeKind::Full);
    bench.settings.server.min = Oldest::Tls13;
    assert!(shake(&bench.server(), &client).is_err());
}

#[test]
fn tls_1_2_resumes_by_tickets_too() {
    let bench = Bench::fresh();
    let mut client = bench.client();
    let provider = provider(false);
    let old = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(lenient::AnyServer(provider)))
        .with_no_client_auth();
    client.config = Arc::new(old);
    let server = bench.server();
    assert_eq!(kind(&server, &client), HandshakeKind::Full);
    assert_eq!(kind(&server.clone(), &client), HandshakeKind::Resumed);
}

#[test]
fn upstreams_are_verified_by_name_and_authority() {
    let mut bench = Bench::fresh();
    let authority = Authority::fresh();
    let signed = authority.sign(&[NAME]);
    bench.settings.server.pairs = vec![bench.folder.pair("signed", &signed)];
    let server = bench.server();
    let ca = bench.folder.write("ca.pem", &authority.certificate_pem());
    bench.settings.upstream.verifies = true;
    bench.settings.upstream.authorities = Some(ca);
    let verified = |bench: &Bench, name| {
        shake(&server, &bench.client_who(UpstreamMode::Verify, name)).map(|_| ())
    };
    assert_eq!(verified(&bench, NAME), Ok(()));
    assert!(verified(&bench, "other.example").is_err());
    assert!(verified(&bench, "192.0.2.1").is_err());
    let other = Authority::fresh().certificate_pem();
    bench.settings.upstream.authorities = Some(bench.folder.write("other.pem", &other));
    assert!(verified(&bench, NAME).is_err());
    for mode in [UpstreamMode::May, UpstreamMode::Require] {
        let client = bench.client_who(mode, "other.example");
        assert!(shake(&server, &client).is_ok(), "{mode:?}");
    }
}

#[test]
fn client_certificates_are_asked_for_required_or_neither() {
    let mut bench = Bench::fresh();
    let authority = Authority::fresh();
    let ca = bench.folder.write("ca.pem", &authority.certificate_pem());
    let mut client = |made: Option<&super::fixtures::Made>| {
        bench.settings.upstream.pair = made.map(|made| bench.folder.pair("client", made));
        bench.client()
    };
    let good = client(Some(&authority.sign(&["client.example"])));
    let stranger = client(Some(&ecdsa(&["client.example"])));
    let none = client(None);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
    // let in at all, and trusted
    let outcome = |server: &ServerTls, client: &UpstreamTls| {
        let (shaken, _) = shake(server, client).ok()?;
        let chain = shaken.peer_certificates().unwrap_or_default();
        Some((!chain.is_empty(), server.trusts(chain, now)))
    };
    for (clients, wants) in [
        (
            ClientCertificates::Off,
            [
                Some((false, false)),
                Some((false, false)),
                Some((false, false)),
            ],
        ),
        (
            ClientCertificates::Ask(ca.clone()),
            [
                Some((true, true)),
                Some((true, false)),
                Some((false, false)),
            ],
        ),
        (
            ClientCertificates::Require(ca.clone()),
            [Some((true, true)), None, None],
        ),
    ] {
        bench.settings.server.clients = clients.clone();
        let server = bench.server();
        for (client, want) in [&good, &stranger, &none].into_iter().zip(wants) {
            assert_eq!(outcome(&server, client), want, "{clients:?}");
        }
    }
}

#[test]
fn a_session_without_a_certificate_does_not_pass_where_one_is_required() {
    let mut bench = Bench::fresh();
    let keys = bench.folder.write("keys", &"5f".repeat(32));
    bench.settings.server.tickets = Some(keys);
    let client = bench.client();
    assert_eq!(kind(&bench.server(), &client), HandshakeKind::Full);
    let ca = Authority::fresh().certificate_pem();
    let ca = bench.folder.write("ca.pem", &ca);
    bench.settings.server.clients = ClientCertificates::Require(ca);
    assert!(shake(&bench.server(), &client).is_err());
}

/// Serves one client of OpenSSL, and returns what it said of the connection.
fn openssl(server: &ServerTls, arguments: &[&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = Arc::clone(&server.config);
    let serving = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(config).unwrap();
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        // a refused handshake is for the client to tell
        let _ = stream.write_all(b"220 ready\r\n");
        let _ = stream.read(&mut [0; 100]);
    });
    let client = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the openssl command line");
    serving.join().unwrap();
    let said = [client.stdout, client.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn openssl_is_shown_the_certificate_of_its_name_and_kind() {
    let mut bench = Bench::fresh();
    let more = [("rsa", rsa(&[NAME])), ("wild", ecdsa(&["*.example.org"]))];
    for (name, made) in &more {
        let pair = bench.folder.pair(name, made);
        bench.settings.server.pairs.push(pair);
    }
    let server = bench.server();
    let path = |name: &str| -> PathBuf { bench.folder.path(&format!("{name}.crt")) };
    for (arguments, want) in [
        (&["-servername", NAME][..], "ecdsa"),
        (&["-noservername"], "ecdsa"),
        (&["-servername", "A.example.ORG"], "wild"),
        (
            &["-servername", NAME, "-sigalgs", "rsa_pss_rsae_sha256"],
            "rsa",
        ),
        (&["-servername", NAME, "-tls1_2"], "ecdsa"),
        (
            &[
                "-servername",
                NAME,
                "-tls1_2",
                "-cipher",
                "ECDHE-RSA-AES128-GCM-SHA256",
            ],
            "rsa",
        ),
    ] {
        let said = openssl(&server, arguments);
        let shown = said.find("-----BEGIN CERTIFICATE").map(|at| &said[at..]);
        let shown = shown.unwrap_or_else(|| panic!("{arguments:?}: {said}"));
        let wanted = std::fs::read_to_string(path(want))
            .unwrap()
            .replace('\r', "");
        assert!(
            shown.starts_with(wanted.trim_end()),
            "{arguments:?}: {said}"
        );
    }
    let said = openssl(&server, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(said.contains("no peer certificate available"), "{said}");
}

#[test]
fn keys_of_openssl_are_read() {
    let folder = Folder::fresh();
    for (name, options) in [
        (
            "p256",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..],
        ),
        (
            "p384",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("rsa", &["-newkey", "rsa:2048"]),
        ("ed25519", &["-newkey", "ed25519"]),
    ] {
        let pair = Pair {
            certificate: folder.path(&format!("{name}.crt")),
            key: folder.path(&format!("{name}.key")),
        };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=x"])
            .args(["-addext", "subjectAltName=DNS:mx.example"])
            .args(options)
            .arg("-out")
            .arg(&pair.certificate)
            .arg("-keyout")
            .arg(&pair.key)
            .output()
            .expect("the openssl command line");
        assert!(made.status.success(), "{made:?}");
        let read = Certificate::load(&pair, &provider(false)).unwrap();
        assert_eq!(read.names, [NAME]);
        let is_rsa = read.keys.key.algorithm() == SignatureAlgorithm::RSA;
        assert_eq!(is_rsa, name == "rsa");
        let month = read.validity.not_after - read.validity.not_before;
        assert_eq!(month, 30 * 86_400, "{name}");
    }
}
