//! What benches of serving measure against, and how they ask: nginx, and a plain GET.

#![allow(dead_code, reason = "every bench uses its own part of this")]
#![allow(clippy::expect_used, reason = "a bench may fail loudly")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A child that is killed by its handle when dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Free at this moment: none of the peers can be asked which port it took.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.expect("free").port()
}

/// nginx serving the files in `folder` with sendfile, and its address.
pub(crate) fn start_nginx(folder: &Path) -> (Killed, String) {
    let port = free_port();
    let (root, config) = (folder.display(), folder.join("nginx.conf"));
    let text = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;\n\
         client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
         uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
         server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
    );
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new("nginx");
    command
        .arg("-e")
        .arg("stderr")
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(config);
    let child = Killed(
        command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx"),
    );
    let address = format!("127.0.0.1:{port}");
    while TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    (child, address)
}

/// The body of `path`, which is there.
pub(crate) fn get(address: &str, path: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("connected");
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    )
    .expect("written");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}");
    let head = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head")
        + 4;
    answer.split_off(head)
}
