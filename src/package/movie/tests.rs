use super::*;

#[test]
fn what_is_no_segment_of_ours_is_refused() {
    let (mut movie, head) = Movie::new(1);
    assert_eq!(head.len() as u64, HEAD_BYTES);
    for bytes in [
        &b""[..],
        b"\0\0\0\x08moov",
        b"\xff\xff\xff\xffmoov",
        b"\0\0\0\x01mdat",
    ] {
        let bytes = Bytes::from_static(bytes);
        assert!(movie.init(0, &bytes).is_err());
        assert!(movie.segment(0, &bytes).is_err());
        assert!(Run::all(&bytes).is_err());
    }
}
