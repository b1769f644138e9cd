package web

import (
	"errors"
	"strings"
	"testing"
)

func TestParseQuery(t *testing.T) {
	for _, tt := range []struct{ raw, code string }{
		{"", ""}, {"region=arn&state=due&q=arn-0&sort=name&page=2&size=50", ""}, {"region=&state=&q=&sort=&page=&size=", ""}, {"q=ARN", ""}, {"page=1000000", ""},
		{"x=1", QueryUnknown}, {"page=1&page=2", QueryRepeated}, {"page=0", QueryValue}, {"page=-1", QueryValue}, {"page=01", QueryValue}, {"page=1000001", QueryValue}, {"page=2e3", QueryValue},
		{"size=501", QueryValue}, {"state=serving'", QueryValue}, {"sort=capacity", QueryValue}, {"q=%3Cscript%3E", QueryValue}, {"region=a/b", QueryValue}, {"q=%zz", QueryMalformed}, {"a;b", QueryMalformed},
		{"q=" + strings.Repeat("a", maxSearch+1), QueryValue}, {"q=" + strings.Repeat("a", maxQuery), QueryMalformed},
	} {
		q, err := ParseQuery(tt.raw)
		var bad *BadQuery
		code := ""
		if errors.As(err, &bad) {
			code = bad.Code
		}
		if code != tt.code {
			t.Errorf("%q: got %q, want %q", tt.raw, code, tt.code)
		}
		if err != nil {
			continue
		}
		if again, err := ParseQuery(q.String()); err != nil || again != q {
			t.Errorf("%q: written as %q, read back as %+v (%v), want %+v", tt.raw, q.String(), again, err, q)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add("region=arn&state=due&q=arn-0&sort=name&page=2&size=50")
	f.Add("state=quarantined&page=")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := ParseQuery(raw)
		if err != nil {
			return
		}
		again, err := ParseQuery(q.String())
		if err != nil || again != q {
			t.Errorf("%q: written as %q, read back as %+v (%v), want %+v", raw, q.String(), again, err, q)
		}
	})
}

func TestSelect(t *testing.T) {
	v := build(t, fleet(3000))
	all := v.Select(Query{Page: 1, Size: 500})
	if all.Found != 3000 || all.Pages != 6 || all.First != 1 || all.Last != 500 {
		t.Errorf("got %d on %d pages, %d to %d", all.Found, all.Pages, all.First, all.Last)
	}
	for i := 1; i < len(all.Servers); i++ {
		if sooner(&all.Servers[i], &all.Servers[i-1]) < 0 {
			t.Fatalf("%s stands before %s", all.Servers[i-1].Name, all.Servers[i].Name)
		}
	}
	if last := v.Select(Query{Page: 900, Size: 500}); last.Page != 6 || len(last.Servers) != 500 || last.Servers[499].Deadline != nil {
		t.Errorf("got page %d with %d, want the last page, servers without a deadline last", last.Page, len(last.Servers))
	}
	if none := v.Select(Query{Search: "nobody", Page: 3, Size: 100}); none.Found != 0 || none.Pages != 1 || none.First != 0 {
		t.Errorf("got %+v, want nothing on one page", none)
	}
	for _, s := range v.Select(Query{Region: "arn", Due: true, Search: "arn-r2", Sort: byName, Page: 1, Size: 100}).Servers {
		if s.Region != "arn" || !s.Due || s.Rack != "arn-r2" {
			t.Errorf("got %s in %s, rack %s, due %v", s.Name, s.Region, s.Rack, s.Due)
		}
	}
}
