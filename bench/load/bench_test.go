package load_test

import (
	"testing"
	"time"

	"mailrace/bench/load"
	"mailrace/bench/sink"
)

// BenchmarkLoadToSink is the most that generator and sink can do: no MTA between them, both in this process. The time is that of all cores for
// one message of 10 KiB.
func BenchmarkLoadToSink(b *testing.B) {
	s, err := sink.Start(sink.Options{Address: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	b.SetBytes(10 << 10)
	b.ResetTimer()
	r, err := load.Run(b.Context(), load.Options{Address: s.Addr(), Connections: 200, Messages: uint64(b.N), Sender: "a@sender.example"})
	if err != nil || r.Accepted != uint64(b.N) {
		b.Fatal(err, r)
	}
	b.ReportMetric(float64(r.CPU)/float64(time.Microsecond)/float64(b.N), "cpu-µs/op")
}
