package web

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Query is which servers are shown. It is what the address of the page says, strictly.
type Query struct {
	Region string
	Kind   Kind
	Due    bool
	Search string
	Sort   string // "deadline" if empty
	Page   int    // from 1
	Size   int
}

// Bounds of a query.
const (
	maxQuery    = 1024
	maxSearch   = 64
	defaultSize = 100
	maxSize     = 500
	maxPage     = 1_000_000
)

// Orders of servers.
const (
	byDeadline = "deadline"
	byName     = "name"
	byRegion   = "region"
)

var searchWord = regexp.MustCompile(`^[a-z0-9.-]*$`)

// BadQuery is why a query is refused. Specification: reason codes of the page.
type BadQuery struct{ Code, Text string }

func (b *BadQuery) Error() string { return b.Code + ": " + b.Text }

// Codes of refused queries.
const (
	QueryMalformed = "query_malformed" // cannot be read, or is too long
	QueryUnknown   = "query_unknown"   // a parameter that the page does not have
	QueryRepeated  = "query_repeated"  // a parameter twice
	QueryValue     = "query_value"     // a value that the parameter does not take
)

// ParseQuery reads the query of an address.
func ParseQuery(raw string) (Query, error) {
	q := Query{Page: 1, Size: defaultSize, Sort: byDeadline}
	if len(raw) > maxQuery {
		return Query{}, &BadQuery{QueryMalformed, fmt.Sprintf("longer than %d bytes", maxQuery)}
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return Query{}, &BadQuery{QueryMalformed, "it cannot be read"}
	}
	for _, key := range slices.Sorted(mapKeys(values)) {
		if len(values[key]) != 1 {
			return Query{}, &BadQuery{QueryRepeated, fmt.Sprintf("%q is there %d times", key, len(values[key]))}
		}
		ok, known := q.set(key, values[key][0])
		if !known {
			return Query{}, &BadQuery{QueryUnknown, fmt.Sprintf("%q: the page has region, state, q, sort, page and size", key)}
		}
		if !ok {
			return Query{}, &BadQuery{QueryValue, fmt.Sprintf("%s does not take %q", key, clean(values[key][0], maxSearch))}
		}
	}
	return q, nil
}

func mapKeys(values url.Values) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range values {
			if !yield(k) {
				return
			}
		}
	}
}

// set takes one parameter. An empty value is as if it were not there: forms send those.
func (q *Query) set(key, value string) (ok, known bool) {
	switch key {
	case "region":
		q.Region = value
		return len(value) <= maxSearch && searchWord.MatchString(value), true
	case "q":
		q.Search = strings.ToLower(strings.TrimSpace(value))
		return len(q.Search) <= maxSearch && searchWord.MatchString(q.Search), true
	case "state":
		if q.Due = value == "due"; !q.Due {
			q.Kind = Kind(value)
		}
		return value == "" || q.Due || slices.Contains(Kinds, q.Kind), true
	case "sort":
		if value != "" {
			q.Sort = value
		}
		return slices.Contains([]string{byDeadline, byName, byRegion}, q.Sort), true
	case "page":
		return number(value, &q.Page, maxPage), true
	case "size":
		return number(value, &q.Size, maxSize), true
	}
	return false, false
}

func number(value string, into *int, most int) bool {
	if value == "" {
		return true
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > most || strconv.Itoa(n) != value {
		return false
	}
	*into = n
	return true
}

// String is the query as the page writes it: ParseQuery reads it back as the same.
func (q Query) String() string {
	v := url.Values{}
	put := func(key, value, unless string) {
		if value != unless && value != "" {
			v.Set(key, value)
		}
	}
	put("region", q.Region, "")
	put("q", q.Search, "")
	put("state", string(q.Kind), "")
	if q.Due {
		v.Set("state", "due")
	}
	put("sort", q.Sort, byDeadline)
	put("page", strconv.Itoa(q.Page), "1")
	put("size", strconv.Itoa(q.Size), strconv.Itoa(defaultSize))
	return v.Encode()
}

// Selection is a page of servers.
type Selection struct {
	Query
	Servers []Server
	Found   int // by the query, on all pages
	Pages   int
	First   int // number of the first one that is shown, from 1; 0 if none is
	Last    int
}

// Select finds the servers of a query. A page after the last is the last.
func (v *View) Select(q Query) Selection {
	s := Selection{Query: q}
	var found []int
	for i := range v.Servers {
		if v.Servers[i].matches(q) {
			found = append(found, i)
		}
	}
	if q.Sort != byRegion && q.Sort != byName {
		slices.SortFunc(found, func(a, b int) int { return sooner(&v.Servers[a], &v.Servers[b]) })
	} else {
		slices.SortFunc(found, func(a, b int) int {
			x, y := &v.Servers[a], &v.Servers[b]
			if q.Sort == byRegion && x.Region != y.Region {
				return strings.Compare(x.Region, y.Region)
			}
			return strings.Compare(x.Name, y.Name)
		})
	}
	s.Found, s.Pages = len(found), max(1, (len(found)+q.Size-1)/q.Size)
	s.Page = min(q.Page, s.Pages)
	from := (s.Page - 1) * q.Size
	to := min(len(found), from+q.Size)
	for _, i := range found[from:to] {
		s.Servers = append(s.Servers, v.Servers[i])
	}
	if len(s.Servers) > 0 {
		s.First, s.Last = from+1, to
	}
	return s
}

func (s *Server) matches(q Query) bool {
	return (q.Region == "" || s.Region == q.Region) && (q.Kind == "" || s.Kind == q.Kind) && (!q.Due || s.Due) &&
		(q.Search == "" || strings.Contains(s.Name, q.Search) || strings.Contains(s.Rack, q.Search) || strings.Contains(s.Role, q.Search))
}

// sooner puts the earliest deadline first, and servers without one last.
func sooner(a, b *Server) int {
	switch {
	case a.Deadline == nil && b.Deadline != nil:
		return 1
	case a.Deadline != nil && b.Deadline == nil:
		return -1
	case a.Deadline != nil && !a.Deadline.Equal(*b.Deadline):
		return a.Deadline.Compare(*b.Deadline)
	}
	return cmp.Compare(a.Name, b.Name)
}

// With is the query with another page, for links.
func (s Selection) With(page int) string {
	q := s.Query
	q.Page = page
	return "?" + q.String()
}
