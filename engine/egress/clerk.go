package egress

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"mailrace/engine/loop"
	"mailrace/engine/maildir"
	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/router/mx"
	"mailrace/spool"

	format "mailrace/proto/maildir"
)

// desksMax is how many goroutines write to mailboxes at a time. A disk that syncs for all of them at once does well with as many.
const desksMax = 64

// desks bounds them. What waits for one is bounded by the router's links, of which each has one job at a time. The zero value is ready for use.
type desks struct {
	once sync.Once
	busy chan struct{}
}

// run runs a job that may block on a goroutine of its own, when there is a desk.
func (d *desks) run(job func()) {
	d.once.Do(func() { d.busy = make(chan struct{}, desksMax) })
	go func() {
		d.busy <- struct{}{}
		job()
		<-d.busy
	}()
}

// clerk writes transactions into mailboxes: a connection as far as the router is concerned, with files at its end. It has one transaction at a
// time, and belongs to its loop; its mailings are the desk's while a job runs.
type clerk struct {
	opts     *Options
	link     *router.Link
	loop     *loop.Loop
	template format.Template

	at       *delivery  // nil = nothing is under way
	mailings []*mailing // one for each recipient that is open
	busy     bool       // a job or a read of the spool is under way
	gone     bool
}

// mailing is a message on its way into one mailbox.
type mailing struct {
	place int // of the recipient in the transaction
	index int // and in the message
	to    string
	dir   string
	box   *maildir.Delivery
	err   error
}

// appoint begins a clerk for a link, on the link's loop.
func (o *Options) appoint(l *loop.Loop, link *router.Link) {
	c := &clerk{opts: o, link: link, loop: l}
	l.Post(func() {
		var err error
		if c.template, err = format.Parse(link.Target().Path); err != nil {
			link.Gone(router.GoneUnreachable, &router.Outcome{Class: router.Deferred, Enhanced: "4.3.5", Text: err.Error()})
			return
		}
		link.Ready(c, router.Limits{})
		c.pump()
	})
}

// pump goes on as far as it can without waiting.
func (c *clerk) pump() {
	for !c.gone && !c.busy {
		if c.at == nil && !c.begin() {
			return
		}
		if first, n, withTrace := c.at.missing(); n > 0 {
			c.read(first, n, withTrace)
			return
		}
		c.write()
	}
}

// begin takes the next transaction that there is something to do for, if there is one.
func (c *clerk) begin() bool {
	for c.at == nil {
		tx := c.link.Next()
		if tx == nil {
			return false
		}
		c.open(tx)
	}
	return true
}

// open finds the mailboxes of a transaction.
func (c *clerk) open(tx *router.Transaction) {
	c.at, c.mailings = &delivery{tx: tx, first: 1, next: 1}, c.mailings[:0]
	for place, i := range tx.Recipients {
		to := tx.Message.Recipients[i].Address
		dir, err := c.mailbox(to)
		if err != nil {
			c.at.rejected = append(c.at.rejected, rejection{place, &router.Outcome{Class: router.Bounced, Code: 553, Enhanced: "5.1.3", Text: err.Error()}})
			continue
		}
		c.mailings = append(c.mailings, &mailing{place: place, index: i, to: to, dir: dir})
	}
	if len(c.mailings) == 0 {
		c.end()
	}
}

// mailbox is the directory of an address.
func (c *clerk) mailbox(address string) (string, error) {
	local, domain := address, c.opts.Hostname
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local, domain = address[:at], address[at+1:]
	}
	domain, err := mx.Normal(domain)
	if err != nil {
		return "", format.ErrAddress
	}
	return c.template.Dir(local, domain)
}

// read has what comes next read from the spool.
func (c *clerk) read(first, n int, withTrace bool) {
	d := c.at
	d.drop()
	c.busy = true
	c.opts.Load(c.loop, d.tx.Message, first, n, func(cs []*message.Chunk, err error) {
		c.busy = false
		if err != nil {
			c.unreadable(err)
			return
		}
		d.take(cs, withTrace)
		c.pump()
	})
}

// unreadable ends a transaction whose content the spool does not give.
func (c *clerk) unreadable(err error) {
	c.opts.Log.Error("a queued message cannot be read from the spool", "id", c.at.tx.Message.ID, "error", err)
	o := &router.Outcome{Class: router.Deferred, Enhanced: "4.3.0", Text: fmt.Sprintf("reading the spool: %v", err)}
	if errors.Is(err, spool.ErrUnreadable) || errors.Is(err, spool.ErrNoMessage) {
		o = damaged()
	}
	c.job(func() {
		for _, m := range c.mailings {
			if m.box != nil {
				m.box.Abort()
			}
		}
	}, func() {
		for _, m := range c.mailings {
			c.at.rejected = append(c.at.rejected, rejection{m.place, o})
		}
		c.mailings = c.mailings[:0]
		c.end()
	})
}

// job runs fn at a desk, and then goes on with then, here.
func (c *clerk) job(fn, then func()) {
	c.busy = true
	c.opts.desks.run(func() {
		fn()
		c.loop.Post(func() {
			c.busy = false
			then()
			c.pump()
		})
	})
}

// write writes what is at hand to all mailboxes.
func (c *clerk) write() {
	d, m := c.at, c.at.tx.Message
	var parts [][]byte
	begins := d.next == 1
	if begins {
		parts = append(parts, d.traceHeader())
	}
	for d.next <= m.Chunks && !d.needsLoad() {
		parts = append(parts, d.chunk(d.next))
		d.next++
	}
	ends, mailings := d.next > m.Chunks, c.mailings
	c.job(func() {
		for _, to := range mailings {
			if begins {
				to.begin(c.opts.Files, m, c.opts.Hostname)
			}
			to.write(parts)
			if ends {
				to.commit(m, c.opts.Hostname)
			}
		}
	}, func() {
		if ends {
			c.end()
		}
	})
}

func (to *mailing) begin(on maildir.FS, m *message.Message, host string) {
	to.box, to.err = maildir.Begin(on, to.dir, format.Name(m, to.index, host, 0), m.Flags&message.Binary != 0)
	if to.err == nil {
		to.write([][]byte{format.Head(m.From, to.to)})
	}
}

func (to *mailing) write(parts [][]byte) {
	for _, part := range parts {
		if to.err != nil {
			return
		}
		if to.err = to.box.Write(part); to.err != nil {
			to.box.Abort()
		}
	}
}

func (to *mailing) commit(m *message.Message, host string) {
	if to.err == nil {
		to.err = to.box.Commit(func(size int64) string { return format.Name(m, to.index, host, size) })
	}
}

// end settles the transaction.
func (c *clerk) end() {
	d := c.at
	c.at = nil
	for _, to := range c.mailings {
		o := router.Outcome{Class: router.Delivered, Enhanced: "2.0.0", Text: "delivered to mailbox"}
		if to.err != nil {
			o = failure(to.err)
			c.opts.Log.Warn("a mailbox cannot be written", "recipient", to.to, "dir", to.dir, "error", to.err)
		}
		d.tx.Settle(to.place, &o)
		*to = mailing{}
	}
	d.settleRejected()
	d.tx.Done()
	d.free()
}

// failure is what an error of the file system means for the mail. Its paths are nobody's business but the operator's.
func failure(err error) router.Outcome {
	o := router.Outcome{Class: router.Deferred, Enhanced: "4.3.0", Text: "the mailbox cannot be written"}
	var number syscall.Errno
	if errors.As(err, &number) {
		o.Text += ": " + number.Error()
	}
	switch number {
	case syscall.ENOSPC:
		o.Enhanced = "4.3.1"
	case syscall.EDQUOT:
		o.Enhanced = "4.2.2"
	case syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOTDIR, syscall.ELOOP:
		o.Enhanced = "4.3.5"
	case syscall.ENAMETOOLONG:
		o.Class, o.Code, o.Enhanced = router.Bounced, 553, "5.1.3"
	}
	return o
}

// Wake pulls work again. It is called by the router.
func (c *clerk) Wake() { c.pump() }

// Close ends the clerk. It is called by the router, when nothing is under way.
func (c *clerk) Close() {
	c.gone = true
	c.loop.Post(func() { c.link.Gone(router.GoneClosed, nil) })
}

var _ router.Conn = (*clerk)(nil)
