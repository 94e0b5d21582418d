//! Each fault does what it says.

use super::*;

const SOON: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that sends back what it gets, and ends when its client has.
async fn echo() -> crate::scripted::Scripted {
    crate::scripted::serve(|stream| async move {
        let (mut read, mut write) = stream.into_split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

async fn client(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap()
}

async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// Everything until the end of the line, and whether it ended with an error.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    (bytes, ended.is_err())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(SOON, stream.read(&mut [0; 1])).await.is_err()
}

#[tokio::test]
async fn without_faults_everything_passes_and_either_end_is_told() {
    let server = echo().await;
    let proxy = Proxy::before(server.port).await;
    let mut stream = client(&proxy).await;
    let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let (mut from, mut to) = stream.split();
    let mut got = Vec::new();
    let (_, _) = tokio::join!(
        async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        },
        async { from.read_to_end(&mut got).await.unwrap() }
    );
    assert!(got == sent);
    assert_eq!((proxy.accepted(), proxy.fired()), (1, 0));
}

#[tokio::test]
async fn latency_and_bandwidth_take_their_time() {
    let server = echo().await;
    let proxy = Proxy::before(server.port).await;
    let mut stream = client(&proxy).await;
    proxy.both(|l| l.latency = Duration::from_millis(200));
    let start = Instant::now();
    stream.write_all(b"x").await.unwrap();
    read(&mut stream, 1).await;
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    proxy.both(|l| l.latency = Duration::ZERO);
    proxy.line(Toward::Client, |l| l.bandwidth = Some(20_000));
    let start = Instant::now();
    stream.write_all(&[b'y'; 10_000]).await.unwrap();
    read(&mut stream, 10_000).await;
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}

#[tokio::test]
async fn slices_arrive_one_by_one() {
    let server = echo().await;
    let proxy = Proxy::before(server.port).await;
    proxy.line(Toward::Client, |l| (l.slice, l.bandwidth) = (Some(1), Some(100)));
    let mut stream = client(&proxy).await;
    stream.write_all(b"abcde").await.unwrap();
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 5 {
        sizes.push(stream.read(&mut [0; 64]).await.unwrap());
    }
    // A loaded machine may deliver two at once, never all.
    assert!(sizes.len() >= 2, "{sizes:?}");
}

#[tokio::test]
async fn a_cut_comes_before_or_after_its_pattern_wherever_the_chunks_end() {
    let server = echo().await;
    let proxy = Proxy::before(server.port).await;
    for (cut, wanted) in [
        (Cut::before("ABA", End::Close), &b"..AB.."[..]),
        (Cut::after("ABA", End::Close), b"..AB..ABA"),
        (Cut::after("AB", End::Close).nth(2), b"..AB..AB"),
        (Cut::after_bytes(3, End::Close), b"..A"),
    ] {
        proxy.cut(Toward::Client, cut);
        proxy.line(Toward::Server, |l| l.slice = Some(1));
        let mut stream = client(&proxy).await;
        stream.write_all(b"..AB..ABA!").await.unwrap();
        assert_eq!(rest(&mut stream).await.0, wanted);
    }
    assert_eq!(proxy.fired(), 4);
    let mut stream = client(&proxy).await;
    stream.write_all(b"ABA").await.unwrap();
    assert_eq!(read(&mut stream, 3).await, b"ABA", "each cut happens once");
}

#[tokio::test]
async fn a_reset_is_an_error_and_hanging_up_is_one_for_all() {
    let server = echo().await;
    let proxy = Proxy::before(server.port).await;
    proxy.cut(Toward::Server, Cut::after("go", End::Reset));
    let mut stream = client(&proxy).await;
    stream.write_all(b"go").await.unwrap();
    assert!(rest(&mut stream).await.1);
    let (mut one, mut two) = (client(&proxy).await, client(&proxy).await);
    for stream in [&mut one, &mut two] {
        stream.write_all(b"x").await.unwrap();
        read(stream, 1).await;
    }
    proxy.hang_up();
    assert!(rest(&mut one).await.1 && rest(&mut two).await.1);
}

#[tokio::test]
async fn half_a_close_leaves_the_other_direction_open() {
    let (heard_in, mut heard) = mpsc::unbounded_channel();
    let server = crate::scripted::serve(move |mut stream| {
        let heard_in = heard_in.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = heard_in.send(all);
        }
    })
    .await;
    let proxy = Proxy::before(server.port).await;
    proxy.cut(Toward::Client, Cut::after("bye", End::HalfClose));
    let mut stream = client(&proxy).await;
    assert_eq!(rest(&mut stream).await, (b"bye".to_vec(), false));
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, heard.recv()).await.unwrap().unwrap(), b"still here");
}

#[tokio::test]
async fn a_black_hole_says_nothing_and_gives_back_what_it_swallowed_when_it_closes() {
    let server = echo().await;
    let proxy = Proxy::before(server.port).await;
    let mut stream = client(&proxy).await;
    proxy.line(Toward::Client, |l| l.hole = true);
    stream.write_all(b"hello").await.unwrap();
    assert!(is_silent(&mut stream).await);
    let mut other = client(&proxy).await;
    other.write_all(b"hello").await.unwrap();
    assert!(is_silent(&mut other).await, "new connections are accepted and hear nothing");
    proxy.line(Toward::Client, |l| l.hole = false);
    assert_eq!(read(&mut stream, 5).await, b"hello");
    proxy.cut(Toward::Client, Cut::after("in", End::Hole));
    stream.write_all(b"in and out").await.unwrap();
    assert_eq!(read(&mut stream, 2).await, b"in");
    assert!(is_silent(&mut stream).await);
}
