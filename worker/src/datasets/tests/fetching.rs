//! What comes from a server: whole, or not at all.

use std::io::Write as _;

use kit::digest::Digest;

use super::{
    super::{DataSetError, Shape, add::Source, catalogue::Catalogue},
    Scene, debugfs, request,
    server::Server,
};

fn from(server: &Server) -> super::AddRequest {
    request("net", Source::of(&server.url))
}

async fn refused(server: &Server) -> (String, usize) {
    let scene = Scene::new();
    let error = scene.add(from(server)).await.unwrap_err();
    assert_eq!(scene.left(), Vec::<String>::new(), "{error}");
    (error.to_string(), server.heads.lock().unwrap().len())
}

// Of several threads: a connection that was given up is closed by a task, while this test waits for the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_whole_under_its_own_name() {
    let bytes = vec![7_u8; 300_000];
    let server = Server::saying("200 OK", "", bytes.clone());
    let scene = Scene::new();
    let pinned = super::AddRequest { sha256: Some(Digest::of(&bytes)), ..from(&server) };
    let (manifest, _) = scene.add(pinned).await.unwrap();
    assert_eq!((manifest.digest, manifest.size_bytes, manifest.files), (Digest::of(&bytes), 300_000, 1));
    assert_eq!(manifest.shape, Shape::File("data.bin".into()));
    assert_eq!(manifest.path_inside(), "/data/net/data.bin");
    assert!(server.heads.lock().unwrap()[0].contains("accept-encoding: identity"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_digest_is_refused() {
    let server = Server::saying("200 OK", "", b"other".to_vec());
    let scene = Scene::new();
    let pinned = super::AddRequest { sha256: Some(Digest::of(b"wanted")), ..from(&server) };
    let error = scene.add(pinned).await.unwrap_err();
    assert!(matches!(error, DataSetError::Digest { kind: "SHA-256", .. }), "{error}");
    assert!(scene.left().is_empty() && scene.names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_is_final_and_a_503_is_tried_again() {
    let (said, asked) = refused(&Server::saying("404 Not Found", "", Vec::new())).await;
    assert!(said.contains("404") && asked == 1, "{said}, {asked}");
    let (said, asked) = refused(&Server::saying("503 Busy", "", Vec::new())).await;
    assert!(said.contains("503") && asked == 3, "{said}, {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_end() {
    let (said, asked) = refused(&Server::saying("302 Found", "location: /data.bin\r\n", Vec::new())).await;
    assert!(said.contains("10 redirects") && asked <= 12, "{said}, {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_limit_ends_announced_or_not() {
    let (said, asked) = refused(&Server::saying("200 OK", "", vec![0; (8 << 20) + 1])).await;
    assert!(said.contains("8MiB") && asked == 1, "{said}, {asked}");
    // A gibibyte of nothing, with no length: the connection is closed long before its end.
    let endless = Server::new(Box::new(|_, _, stream| {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let piece = vec![0_u8; 1 << 20];
        let mut sent = stream.write_all(head.as_bytes());
        for _ in 0..1024 {
            sent = sent.and_then(|()| stream.write_all(&piece));
        }
        assert!(sent.is_err(), "all of it was taken");
    }));
    assert!(refused(&endless).await.0.contains("8MiB"));
}

/// Breaks in the middle; then answers the range, or the whole file, or with another file.
fn broken(whole: &'static [u8], second: &'static str) -> Server {
    Server::new(Box::new(move |number, head, stream| {
        let middle = whole.len() / 2;
        let text = match (number, second) {
            (0, _) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"one\"\r\n\r\n", whole.len()),
            (_, "range") => {
                assert!(
                    head.contains(&format!("range: bytes={middle}-")) && head.contains("if-range: \"one\"")
                );
                format!(
                    "HTTP/1.1 206 Partial\r\nconnection: close\r\ncontent-length: {}\r\ncontent-range: bytes {middle}-{}/{}\r\n\r\n",
                    whole.len() - middle,
                    whole.len() - 1,
                    whole.len()
                )
            }
            _ => format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", whole.len()),
        };
        stream.write_all(text.as_bytes()).unwrap();
        let body = match (number, second) {
            (0, _) => &whole[..middle],
            (_, "range") => &whole[middle..],
            _ => whole,
        };
        stream.write_all(body).unwrap();
        if number == 0 {
            // So that the half has come before the connection ends.
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_goes_on_or_begins_again_and_the_bytes_are_right() {
    static WHOLE: &[u8] = &[3; 70_000];
    for second in ["range", "whole"] {
        let server = broken(WHOLE, second);
        let scene = Scene::new();
        let (manifest, _) = scene.add(from(&server)).await.unwrap();
        assert_eq!(manifest.digest, Digest::of(WHOLE), "{second}");
        assert_eq!(server.heads.lock().unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_always_short_is_refused() {
    let short = Server::new(Box::new(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort").ok();
    }));
    let (said, asked) = refused(&short).await;
    assert!(said.contains("3 times") && asked == 3, "{said}, {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_has_an_end() {
    let silent = Server::new(Box::new(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx").ok();
        std::thread::sleep(std::time::Duration::from_secs(2));
    }));
    let scene = Scene::new();
    let mut impatient = from(&silent);
    impatient.rules.silence = std::time::Duration::from_millis(200);
    impatient.rules.again.attempts = 1;
    let error = scene.add(impatient).await.unwrap_err();
    assert!(matches!(error, DataSetError::Url { .. }), "{error}");
    assert!(scene.left().is_empty());
}

#[test]
fn what_may_be_a_secret_in_an_address_is_not_kept() {
    let url = super::super::fetch::parse("https://me:word@example.org/a/b.zip?token=x#y").unwrap();
    assert_eq!(super::super::fetch::shown(&url), "https://example.org/a/b.zip");
}

fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn catalogue(url: &str, archive: &[u8]) -> String {
    let hex = Digest::of(archive).hex();
    let file = |name: &str, member: &str, more: &str| {
        format!(
            "[[data_set.file]]\nname = \"{name}\"\nurls = [\"{url}\"]\nsha256 = \"{hex}\"\nsize_bytes = 0\n\
             member = \"{member}\"\n{more}\n"
        )
    };
    format!(
        "[[data_set]]\nname = \"small\"\nlicence = \"CC0\"\ndescription = \"Small.\"\n{}{}",
        file("train.txt", "../../etc/train", "first_bytes = 12"),
        file("test.txt", "test", "")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_an_archive_come_out_under_our_names_and_bounded() {
    let archive = zipped(&[("../../etc/train", b"one\ntwo\nthree\nfour\n"), ("test", b"end")]);
    let server = Server::saying("200 OK", "", archive.clone());
    let known = Catalogue::parse(&catalogue(&server.url, &archive)).unwrap();
    let scene = Scene::new();
    let source = Source::Catalogue(known.find("small").unwrap().clone());
    let (manifest, _) = scene.add(request("small", source)).await.unwrap();
    // Fetched once for both; 12 bytes end within "three".
    assert_eq!(server.heads.lock().unwrap().len(), 1);
    let image = scene.store.lend("small").unwrap().layer.image;
    assert_eq!(debugfs(&image, "cat train.txt"), "one\ntwo\n");
    assert_eq!(debugfs(&image, "cat test.txt"), "end");
    assert_eq!((manifest.files, manifest.size_bytes, manifest.licence.as_str()), (2, 11, "CC0"));
    assert!(!debugfs(&image, "ls -p /").contains("etc"));
    assert!(manifest.wire().description.starts_with("Small. "), "{}", manifest.wire().description);
    assert!(manifest.wire().description.contains("test.txt, train.txt"));

    // A bomb: its members claim little and give much.
    let bomb = zipped(&[("../../etc/train", b"x"), ("test", &vec![0; 9 << 20])]);
    let server = Server::saying("200 OK", "", bomb.clone());
    let known = Catalogue::parse(&catalogue(&server.url, &bomb)).unwrap();
    let source = Source::Catalogue(known.find("small").unwrap().clone());
    let error = scene.add(request("bomb", source)).await.unwrap_err();
    assert!(matches!(error, DataSetError::TooLarge { .. }), "{error}");
    assert_eq!(scene.names(), ["small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogues_checksums_are_all_compared() {
    let server = Server::saying("200 OK", "", b"hello\n".to_vec());
    let entry = |pins: &str| {
        let text = format!(
            "[[data_set]]\nname = \"x\"\nlicence = \"\"\ndescription = \"\"\n[[data_set.file]]\nname = \"x\"\n\
             urls = [\"http://127.0.0.1:1/none\", \"{}\"]\n{pins}\n",
            server.url
        );
        Source::Catalogue(Catalogue::parse(&text).unwrap().find("x").unwrap().clone())
    };
    let scene = Scene::new();
    for (pins, kind) in [
        ("sha256 = \"\"\nmd5 = \"00000000000000000000000000000000\"\nsize_bytes = 0", "MD5"),
        ("sha256 = \"\"\nsize_bytes = 7", "size"),
        (&format!("sha256 = \"{}\"\nsize_bytes = 6", "0".repeat(64)), "SHA-256"),
    ] {
        let error = scene.add(request("x", entry(pins))).await.unwrap_err();
        assert!(matches!(&error, DataSetError::Digest { kind: k, .. } if *k == kind), "{error}");
    }
    // md5sum of "hello\n"; the first address does not answer and the second one does.
    let right = "sha256 = \"\"\nmd5 = \"b1946ac92492d2347c6235b4d2611184\"\nsize_bytes = 6";
    let (manifest, _) = scene.add(request("x", entry(right))).await.unwrap();
    assert_eq!(manifest.digest, Digest::of(b"hello\n"));
}

#[test]
fn the_catalogue_that_ships_is_sound() {
    let shipped = Catalogue::shipped().unwrap();
    let there = |name: &str| shipped.find(name).is_ok();
    assert!(
        ["mnist", "fashion-mnist", "cifar-10", "wikitext-2", "wikitext-103", "wikitext-103-small"]
            .into_iter()
            .chain(["tinyshakespeare"])
            .all(there)
    );
    for entry in shipped.entries() {
        assert!(!entry.licence.is_empty() && !entry.description.is_empty(), "{}", entry.name);
        for file in &entry.file {
            let plain = file.urls.iter().any(|url| url.starts_with("http://"));
            assert!(!plain || !file.sha256.is_empty(), "{}: http and not pinned", entry.name);
        }
    }
    let unknown = shipped.find("imagenet").unwrap_err().to_string();
    assert!(unknown.contains("mnist"), "{unknown}");
    for wrong in [
        "data_set = 1",
        "[[data_set]]\nname = \"A\"",
        "[[data_set]]\nname = \"a\"\nlicence = \"\"\ndescription = \"\"\ncolour = 1\nfile = []",
        "[[data_set]]\nname = \"a\"\nlicence = \"\"\ndescription = \"\"\nfile = []",
        "[[data_set]]\nname = \"a\"\nlicence = \"\"\ndescription = \"\"\n[[data_set.file]]\nname = \"../x\"\nurls = [\"http://a/b\"]\nsha256 = \"\"\nsize_bytes = 0",
        "[[data_set]]\nname = \"a\"\nlicence = \"\"\ndescription = \"\"\n[[data_set.file]]\nname = \"x\"\nurls = [\"file:///etc/shadow\"]\nsha256 = \"\"\nsize_bytes = 0",
    ] {
        assert!(Catalogue::parse(wrong).is_err(), "{wrong}");
    }
}
