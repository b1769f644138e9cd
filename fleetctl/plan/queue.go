package plan

import "slices"

// item is something that waits in a heap: the smallest key first, then the smallest of of.
type item struct {
	key int64
	of  int32 // a server
	id  int32 // where it waits: a lane, or a domain
}

func (a item) before(b item) bool { return a.key < b.key || a.key == b.key && a.of < b.of }

// heap is a binary heap of items.
type heap []item

func (h *heap) push(x item) {
	a := append(*h, x)
	i := len(a) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !x.before(a[up]) {
			break
		}
		a[i] = a[up]
		i = up
	}
	a[i] = x
	*h = a
}

func (h *heap) pop() item {
	a := *h
	top, x := a[0], a[len(a)-1]
	a = a[:len(a)-1]
	if len(a) > 0 {
		i := 0
		for {
			c := 2*i + 1
			if c >= len(a) {
				break
			}
			if c+1 < len(a) && a[c+1].before(a[c]) {
				c++
			}
			if !a[c].before(x) {
				break
			}
			a[i] = a[c]
			i = c
		}
		a[i] = x
	}
	*h = a
	return top
}

// agenda is what happens when: a list for each stretch of time, sorted when the clock comes to it. Adding costs an append, so that millions of
// servers cost no more than their own memory. A second and a number are packed into one word.
type agenda struct {
	buckets [][]uint64
	at      int // the bucket that is being worked on
	next    int // in it
	late    heap64
	spare   [][]uint64              // emptied
	sorted  []uint64                // room for sorting
	open    func([]uint64) []uint64 // told of each bucket before it is sorted: what nothing waits for any more, it leaves out
}

// Implementation constants.
const bucketSeconds = 300

func (a *agenda) add(second uint32, number uint32) {
	e := uint64(second)<<32 | uint64(number)
	b := int(second / bucketSeconds)
	if b <= a.at {
		a.late.push(e) // the bucket is sorted already
		return
	}
	if b >= len(a.buckets) {
		return // after the end
	}
	if a.buckets[b] == nil && len(a.spare) > 0 {
		a.buckets[b], a.spare = a.spare[len(a.spare)-1], a.spare[:len(a.spare)-1]
	}
	a.buckets[b] = append(a.buckets[b], e)
}

// peek is the next entry; false at the end.
func (a *agenda) peek() (uint64, bool) {
	for {
		if a.at >= 0 && a.at < len(a.buckets) && a.next < len(a.buckets[a.at]) {
			e := a.buckets[a.at][a.next]
			if len(a.late) > 0 && a.late[0] < e {
				return a.late[0], true
			}
			return e, true
		}
		if len(a.late) > 0 {
			return a.late[0], true
		}
		if a.at >= 0 && a.at < len(a.buckets) && cap(a.buckets[a.at]) > 0 {
			a.spare = append(a.spare, a.buckets[a.at][:0])
			a.buckets[a.at] = nil
		}
		if a.at++; a.at >= len(a.buckets) {
			return 0, false
		}
		a.next = 0
		a.buckets[a.at] = a.open(a.buckets[a.at])
		a.sort(a.buckets[a.at], uint32(a.at)*bucketSeconds)
	}
}

// sort puts a bucket in order: counted by seconds, then each second by itself, which has few.
func (a *agenda) sort(b []uint64, from uint32) {
	if len(b) < bucketSeconds {
		slices.Sort(b)
		return
	}
	var ends [bucketSeconds + 1]int32
	for _, e := range b {
		ends[uint32(e>>32)-from+1]++
	}
	for i := range bucketSeconds {
		ends[i+1] += ends[i]
	}
	if cap(a.sorted) < len(b) {
		a.sorted = make([]uint64, len(b)+len(b)/2)
	}
	c := a.sorted[:len(b)]
	for _, e := range b {
		at := &ends[uint32(e>>32)-from]
		c[*at] = e
		*at++
	}
	first := int32(0)
	for _, end := range ends[:bucketSeconds] { // each has moved to its second's end
		slices.Sort(c[first:end])
		first = end
	}
	copy(b, c)
}

func (a *agenda) pop(e uint64) {
	if len(a.late) > 0 && a.late[0] == e {
		a.late.pop()
		return
	}
	a.next++
}

// heap64 is a binary heap of words.
type heap64 []uint64

func (h *heap64) push(x uint64) {
	a := append(*h, x)
	i := len(a) - 1
	for i > 0 && x < a[(i-1)/2] {
		a[i] = a[(i-1)/2]
		i = (i - 1) / 2
	}
	a[i] = x
	*h = a
}

func (h *heap64) pop() {
	a := *h
	x := a[len(a)-1]
	a = a[:len(a)-1]
	for i := 0; len(a) > 0; {
		c := 2*i + 1
		if c+1 < len(a) && a[c+1] < a[c] {
			c++
		}
		if c >= len(a) || x <= a[c] {
			a[i] = x
			break
		}
		a[i] = a[c]
		i = c
	}
	*h = a
}
