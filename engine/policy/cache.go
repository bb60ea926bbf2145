package policy

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailrace/engine/keep"
	"mailrace/proto/mtasts"
)

const (
	cacheBytes  = 32 << 20 // of policies at most, about
	entryBytes  = 200      // of one, beside its names
	fileMax     = 4 * cacheBytes
	savePause   = 5 * time.Second // in which changes gather, for each saveStep of what is known
	saveStep    = 1 << 20         // octets
	saveAgain   = time.Minute     // after which a file that could not be written is tried again
	evictSample = 8
	fileForm    = 1
	usedGrain   = int64(time.Hour / time.Second) // to which it is noted when a policy was used
)

// stored is a policy as it is remembered. Times are Unix seconds.
type stored struct {
	mtasts.Policy
	ID      string `json:"id"`
	Fetched int64  `json:"fetched"`
	Used    int64  `json:"used"`
}

// ends is when the policy holds no longer.
func (p *stored) ends() time.Time { return time.Unix(p.Fetched, 0).Add(p.MaxAge) }

// aged says whether the policy is to be fetched again although it holds.
func (p *stored) aged(now time.Time) bool {
	return now.Sub(time.Unix(p.Fetched, 0)) >= min(refreshAge, p.MaxAge/2)
}

func (p *stored) bytes(domain string) int {
	n := entryBytes + len(domain)
	for _, name := range p.MX {
		n += len(name) + 16
	}
	return n
}

// cache is what is known of policies, in memory, and in one file that is replaced as a whole. Any goroutine.
type cache struct {
	fs   keep.FS
	file string
	log  *slog.Logger

	mu      sync.Mutex
	of      map[string]*stored // by domain
	bytes   int
	changed chan struct{} // has one in it when the file is behind
}

// policyFile is what stands in the file.
type policyFile struct {
	Form     int                `json:"form"`
	Policies map[string]*stored `json:"policies"`
}

// newCache reads the file, if there is one.
func newCache(fsys keep.FS, file string, log *slog.Logger) *cache {
	c := &cache{fs: fsys, file: file, log: log, of: map[string]*stored{}, changed: make(chan struct{}, 1)}
	if err := c.read(); err != nil {
		log.Warn("the MTA-STS policies that were known cannot be read, and are fetched again", "file", file, "error", err)
	}
	return c
}

func (c *cache) read() error {
	if c.file == "" {
		return nil
	}
	text, err := keep.Read(c.fs, c.file, fileMax)
	if text == nil || err != nil {
		return err
	}
	var f policyFile
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	if f.Form != fileForm {
		return fmt.Errorf("form %d is not known", f.Form)
	}
	for domain, p := range f.Policies {
		if p != nil && p.MaxAge >= 0 && p.MaxAge <= mtasts.AgeMax && (p.Mode == mtasts.Enforce || p.Mode == mtasts.Testing || p.Mode == mtasts.None) {
			c.add(domain, p)
		}
	}
	return nil
}

// get returns the policy of a domain if it still holds, or nil. It notes that it is used.
func (c *cache) get(domain string, now time.Time) *stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.of[domain]
	if p == nil || !now.Before(p.ends()) {
		return nil
	}
	if now.Unix()-p.Used >= usedGrain {
		again := *p
		again.Used = now.Unix()
		c.of[domain], p = &again, &again
		c.touch()
	}
	return p
}

// peek is get that leaves no trace, also of a policy that ended.
func (c *cache) peek(domain string) *stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[domain]
}

// put remembers a policy.
func (c *cache) put(domain string, p *stored) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(domain, p)
	c.touch()
}

// add takes p in. Where there is no room, of a few policies that come to hand the one goes that was not used for the longest. c.mu is held, but
// while the cache is made.
func (c *cache) add(domain string, p *stored) {
	c.drop(domain)
	for c.bytes+p.bytes(domain) > cacheBytes && len(c.of) > 0 {
		oldest, seen := "", 0
		for other, q := range c.of {
			if oldest == "" || q.Used < c.of[oldest].Used {
				oldest = other
			}
			if seen++; seen == evictSample {
				break
			}
		}
		c.drop(oldest)
	}
	c.of[domain] = p
	c.bytes += p.bytes(domain)
}

func (c *cache) drop(domain string) {
	if p := c.of[domain]; p != nil {
		c.bytes -= p.bytes(domain)
		delete(c.of, domain)
	}
}

// touch notes that the file is behind.
func (c *cache) touch() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.of)
}

// aged are the domains whose policies are to be fetched again. What ended, or was not used for long, is forgotten.
func (c *cache) aged(now time.Time) (domains []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for domain, p := range c.of {
		switch {
		case !now.Before(p.ends()):
			c.drop(domain)
		case p.aged(now) && now.Sub(time.Unix(p.Used, 0)) < unusedMost:
			domains = append(domains, domain)
		}
	}
	return domains
}

// keep writes the file when something changed, and once more at the end.
func (s *policies) keep() {
	c, pause := s.cache, s.cache.pause()
	for {
		select {
		case <-c.changed:
			select {
			case <-s.ending.Done():
			case <-time.After(pause):
			}
			if pause = c.pause(); !c.save() {
				pause = saveAgain
				c.touch()
			}
		case <-s.ending.Done():
			select {
			case <-c.changed:
				c.save()
			default:
			}
			return
		}
	}
}

// pause is how long changes gather before the file is written: the larger it is the longer, so that the disk and the processor have little of it, however
// often a busy node uses another policy.
func (c *cache) pause() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return savePause * time.Duration(1+c.bytes/saveStep)
}

// save says whether the file is up to date.
func (c *cache) save() bool {
	if c.file == "" {
		return true
	}
	err := c.write()
	if err != nil {
		c.log.Error("the MTA-STS policies cannot be kept for the next start", "file", c.file, "error", err)
	}
	return err == nil
}

func (c *cache) write() error {
	c.mu.Lock()
	text, err := json.Marshal(policyFile{fileForm, c.of})
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return keep.Write(c.fs, c.file, text)
}
