package card

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience: a daemon that hangs is waited for once, and not by each who asks; when it goes on so do they.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 15 * time.Second
		p, goOn, calls := NewPatience(limit), make(chan struct{}), 0
		list := func() ([]Reader, error) {
			calls++
			<-goOn
			return []Reader{{Name: reader}}, nil
		}
		for i, want := range []time.Duration{limit, 0, 0} {
			began := time.Now()
			if _, err := p.Readers(t.Context(), list); FaultOf(err) != TooLong || time.Since(began) != want {
				t.Errorf("question %d: got %v after %v, want %v", i, err, time.Since(began), want)
			}
			synctest.Wait()
		}
		if calls != 1 {
			t.Errorf("%d calls hang", calls)
		}
		close(goOn)
		synctest.Wait()
		if readers, err := p.Readers(t.Context(), list); err != nil || len(readers) != 1 {
			t.Errorf("got %v, %v", readers, err)
		}
	})
}
