//! A server of one address that says what a test tells it to say, one connection after the other.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// What one connection gets: the request's head comes in, bytes go out, and the connection is closed.
type Answer = Box<dyn Fn(usize, &str, &mut TcpStream) + Send + Sync>;

pub(super) struct Server {
    pub url: String,
    pub heads: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn new(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&heads), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                kept.lock().unwrap().push(head.clone());
                answer(number, &head, &mut stream);
            }
        });
        Self { url: format!("http://{address}/data.bin"), heads, stop, address, thread: Some(thread) }
    }

    /// The same whole answer each time.
    pub(super) fn saying(status: &'static str, headers: &'static str, body: Vec<u8>) -> Self {
        Self::new(Box::new(move |_, _, stream| {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
            );
            // The client may have had enough.
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).ok();
        }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
