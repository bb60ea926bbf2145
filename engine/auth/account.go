package auth

import (
	"sync"
	"time"
)

// Limits are what a user may do on this node, at all doors together. 0 means no limit.
type Limits struct {
	Messages    int // transactions begun in an hour, which slides
	Recipients  int // accepted in an hour; sessions side by side may go over it by what each has under way
	Connections int // open at once, as this user
}

// account is what a user has done lately. It outlives the users file in which it was found.
type account struct {
	mu          sync.Mutex
	connections int
	hour        int64 // number of the running one
	now, before spent
}

// spent is what was done in an hour.
type spent struct{ messages, recipients int }

// Unlimited is the allowance of recipients of users without such a limit.
const Unlimited = 1 << 30

// Enter counts a connection as this user, unless there are too many. Leave ends what it began. Any goroutine may call them.
func (u *User) Enter() bool {
	a := u.account
	a.mu.Lock()
	defer a.mu.Unlock()
	if u.Connections > 0 && a.connections >= u.Connections {
		return false
	}
	a.connections++
	return true
}

// Leave ends a connection that Enter admitted.
func (u *User) Leave() {
	u.account.mu.Lock()
	defer u.account.mu.Unlock()
	u.account.connections--
}

// Begin counts another message. recipients is how many it may have: 0 if the limit of recipients is reached, and -1 if that of messages is; the
// message is not counted then. Any goroutine may call it.
func (u *User) Begin(now time.Time) (recipients int) {
	a := u.account
	a.mu.Lock()
	defer a.mu.Unlock()
	part := a.turn(now)
	if u.Messages > 0 && slide(a.now.messages, a.before.messages, part) >= u.Messages {
		return -1
	}
	recipients = Unlimited
	if u.Recipients > 0 {
		if recipients = max(u.Recipients-slide(a.now.recipients, a.before.recipients, part), 0); recipients == 0 {
			return 0
		}
	}
	a.now.messages++
	return recipients
}

// AddRecipients counts recipients that were accepted. Any goroutine may call it.
func (u *User) AddRecipients(n int, now time.Time) {
	u.account.mu.Lock()
	defer u.account.mu.Unlock()
	u.account.turn(now)
	u.account.now.recipients += n
}

// turn moves on to the hour of now, and returns what part of the last one still lies within an hour from now.
func (a *account) turn(now time.Time) (part float64) {
	const hour = int64(time.Hour)
	n := now.UnixNano() / hour
	if n > a.hour { // a clock that was set back stays in the hour it was in
		if a.before = (spent{}); n == a.hour+1 {
			a.before = a.now
		}
		a.now, a.hour = spent{}, n
	}
	return 1 - float64(now.UnixNano()%hour)/float64(hour)
}

// slide estimates the count of an hour that ends now.
func slide(now, before int, part float64) int { return now + int(float64(before)*part) }

// idle says whether nothing of the account needs to be kept.
func (a *account) idle(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(now)
	return a.connections == 0 && a.now == (spent{}) && a.before == (spent{})
}
