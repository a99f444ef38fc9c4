//! A bad network, or a bad day of a service, between a client and a real one.
//!
//! Enters: HTTP requests with bodies of a known length
//! Leaves: the same at the service, or what the [`Fault`] of the moment makes of them
//! Never:  an answer of its own that the service would not give
//! Time:   wall clock
//! Spec:   none

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is carried out.
    None,
    /// Nobody listens.
    Refused,
    /// Nobody answers.
    Hung,
    /// It takes this many milliseconds longer.
    Slow(u64),
    /// The service says 500.
    Broken,
    /// The service says 503 SlowDown.
    SlowDown,
    /// Half of the body arrives, then the connection is reset.
    Torn,
    /// It is carried out, and the connection is reset instead of an answer.
    LostAnswer,
    /// The service finds the client's clock wrong.
    Skewed,
    /// The service does not know conditions, and says so.
    NoConditions,
    /// The service does not know conditions, and writes all the same.
    IgnoredConditions,
}

/// A proxy in front of one service.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    service: SocketAddr,
    fault: Mutex<Fault>,
    stopped: AtomicBool,
    /// Requests that met the fault of their moment.
    met: AtomicUsize,
}

impl Proxy {
    pub(crate) fn start(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            service,
            fault: Mutex::new(Fault::None),
            stopped: AtomicBool::new(false),
            met: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || accept(listener, &accepting));
        Self { address, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this is what happens, to requests under way as well.
    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
        self.state.met.store(0, Ordering::Relaxed);
    }

    /// How many requests have met the present fault.
    pub(crate) fn met(&self) -> usize {
        self.state.met.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

fn accept(listener: TcpListener, state: &Arc<State>) {
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut listener = Some(listener);
    while state.goes_on() {
        if state.fault() == Fault::Refused {
            if listener.take().is_some() {
                state.met.fetch_add(1, Ordering::Relaxed);
            }
        } else if listener.is_none() {
            listener = TcpListener::bind(address).ok();
            if let Some(listener) = &listener {
                listener.set_nonblocking(true).unwrap();
            }
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => {
                let state = Arc::clone(state);
                thread::spawn(move || serve(client, &state));
            }
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Carries requests of one connection until either side has enough.
fn serve(mut client: TcpStream, state: &State) {
    let patience = Some(Duration::from_secs(60));
    let limited = client
        .set_nonblocking(false)
        .and_then(|()| client.set_read_timeout(patience));
    if limited.is_err() {
        return;
    }
    while state.goes_on() {
        let Ok(Some(request)) = Message::read(&mut client) else {
            return;
        };
        if exchange(request, &mut client, state).is_err() {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// One request and its answer; an error closes the connection.
fn exchange(mut request: Message, client: &mut TcpStream, state: &State) -> io::Result<()> {
    let fault = state.fault();
    let reset = || Err(io::ErrorKind::ConnectionReset.into());
    let is_conditional = request.has_header("if-match") || request.has_header("if-none-match");
    let spares = matches!(fault, Fault::NoConditions | Fault::IgnoredConditions) && !is_conditional;
    if fault != Fault::None && !spares {
        state.met.fetch_add(1, Ordering::Relaxed);
    }
    match fault {
        Fault::None => {}
        Fault::Refused => return reset(),
        Fault::Hung => {
            while state.fault() == Fault::Hung && state.goes_on() {
                thread::sleep(Duration::from_millis(20));
            }
            return reset();
        }
        Fault::Slow(millis) => thread::sleep(Duration::from_millis(millis)),
        Fault::Broken => return refuse(client, "500 Internal Server Error", "InternalError"),
        Fault::SlowDown => return refuse(client, "503 Slow Down", "SlowDown"),
        Fault::Skewed => return refuse(client, "403 Forbidden", "RequestTimeTooSkewed"),
        Fault::NoConditions if is_conditional => {
            return refuse(client, "501 Not Implemented", "NotImplemented");
        }
        Fault::IgnoredConditions => {
            request.remove_header("if-match");
            request.remove_header("if-none-match");
        }
        Fault::NoConditions | Fault::Torn | Fault::LostAnswer => {}
    }
    let mut service = TcpStream::connect(state.service)?;
    service.set_read_timeout(Some(Duration::from_secs(60)))?;
    if fault == Fault::Torn && !request.body.is_empty() {
        let half = request.body.len() / 2;
        service.write_all(request.head.as_bytes())?;
        service.write_all(&request.body[..half])?;
        return reset();
    }
    service.write_all(request.head.as_bytes())?;
    service.write_all(&request.body)?;
    let answer = if request.head.starts_with("HEAD ") {
        Message::read_head(&mut service)?
    } else {
        Message::read(&mut service)?
    };
    let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
    if fault == Fault::LostAnswer {
        return reset();
    }
    client.write_all(answer.head.as_bytes())?;
    client.write_all(&answer.body)
}

fn refuse(client: &mut TcpStream, status: &str, code: &str) -> io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><RequestId>tx1</RequestId></Error>"
    );
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request or an answer.
struct Message {
    /// With the empty line that ends it.
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// `None` where the other side has closed.
    fn read(from: &mut TcpStream) -> io::Result<Option<Self>> {
        let Some(mut message) = Self::read_head(from)? else {
            return Ok(None);
        };
        let has_none = [" 204", " 304"];
        if has_none
            .iter()
            .any(|code| message.head.lines().next().unwrap().contains(code))
        {
            return Ok(Some(message));
        }
        let chunked = message.header("transfer-encoding").is_some();
        if chunked {
            message.read_chunks(from)?;
        } else {
            let len = message
                .header("content-length")
                .map_or(0, |len| len.parse().unwrap());
            message.body = vec![0; len];
            from.read_exact(&mut message.body)?;
        }
        Ok(Some(message))
    }

    /// The body as it is on the wire, to the chunk of no length.
    fn read_chunks(&mut self, from: &mut TcpStream) -> io::Result<()> {
        while !self.body.ends_with(b"0\r\n\r\n") {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            self.body.push(byte[0]);
        }
        Ok(())
    }

    fn read_head(from: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if from.read(&mut byte)? == 0 {
                return Ok(None);
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let body = Vec::new();
        Ok(Some(Self { head, body }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    fn has_header(&self, name: &str) -> bool {
        self.header(name).is_some()
    }

    fn remove_header(&mut self, name: &str) {
        let is_it = |line: &&str| {
            let found = line.split_once(':').map(|(found, _)| found);
            found.is_some_and(|found| found.eq_ignore_ascii_case(name))
        };
        let kept = self
            .head
            .split_inclusive("\r\n")
            .filter(|line| !is_it(line));
        self.head = kept.collect();
    }
}
