// Package loop runs connections on event loops: one goroutine per loop waits in epoll, and owns its connections, timers and posted
// functions. It is the only importer of gnet, and adds to it what a mail server needs: deadlines on a timing wheel, bounded buffers in
// both directions, reads that can be paused, outbound connections, lingering close, refusal of new connections before descriptors run out,
// and a shutdown that leaves neither goroutine nor descriptor.
//
// Everything that belongs to a connection happens on the goroutine of its loop: the callbacks of its Handler, and every method of Conn.
// Only Loop.Post, Loop.PostTask, Loop.Dial, Loop.Index and the methods of Group may be called by other goroutines. A callback must not
// block: whatever waits (disk, DNS, hashing) runs elsewhere and comes back by PostTask.
//
// # Order of callbacks
//
// Open comes first, Closed last, each once. Callbacks never nest: a Write, Close or Resume inside a callback takes effect on the
// connection at once, but what it causes (Data of kept bytes, Closed) is called when the running callback or task has returned.
//
// # TLS
//
// Wire bytes meet a handler's bytes in two places only: Conn.received (inbound) and Conn.transmit (outbound). Conn.StartTLS puts crypto/tls
// there. Handshakes block and burn processor time, so they run on a pool of goroutines, fed by the loop; after the handshake records are
// opened and sealed on the loop, and a connection has no goroutine. Handlers and protocol machines see plaintext only.
package loop
