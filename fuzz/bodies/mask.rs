//! Every version of masking against the first, which is the specification.

use polycast::simd::versions;

pub(crate) fn run(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk::<6>() else { return };
    let key = [head[0], head[1], head[2], head[3]];
    let (phase, offset) = (usize::from(head[4]), usize::from(head[5]) % 64);
    let body = &body[offset.min(body.len())..];
    let mut versions = versions().into_iter();
    let (_, scalar) = versions.next().expect("the specification");
    let mut want = body.to_vec();
    let next = scalar(&mut want, key, phase);
    for (name, mask) in versions {
        // At an offset from wherever the allocation begins.
        let mut got = [vec![0xaa; offset], body.to_vec(), vec![0xaa; 64]].concat();
        let end = offset + body.len();
        assert_eq!(mask(&mut got[offset..end], key, phase), next, "{name}: phase");
        assert!(got[offset..end] == want, "{name}: octets");
        assert!(got[..offset].iter().chain(&got[end..]).all(|it| *it == 0xaa), "{name}: outside");
    }
}
