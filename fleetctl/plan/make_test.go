package plan

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/inventory"
)

var t0 = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// rules of the tests: a turn is 1m + 1*(1m+3m) + 1m = 6m.
var rules = Rules{MaxAge: 24 * time.Hour, MaxParallel: 2, DrainLimit: time.Minute, BootLimit: 3 * time.Minute, Bake: time.Minute}

func serving(name, region string, capacity int, left time.Duration) Server {
	return Server{Name: name, Region: region, Capacity: capacity, State: inventory.Serving, Epoch: 1, Deadline: t0.Add(left)}
}

func state(s inventory.State, x Server) Server { x.State = s; return x }

func bastion(x Server) Server { x.Bastion = true; return x }

func revoked(x Server) Server { x.Revoked = true; return x }

// healthy is a fleet in which everything that serves was just heard of.
func healthy(s Snapshot) Health {
	h := Health{}
	for _, x := range s.Servers {
		if x.State == inventory.Serving {
			h[x.Name] = t0
		}
	}
	return h
}

func TestMake(t *testing.T) {
	se := func(servers ...Server) Snapshot {
		return Snapshot{Fleet: "f", Regions: []Region{{"se", 1000}}, Servers: servers}
	}
	day := 24 * time.Hour
	all := rules
	all.All = true
	lost := rules
	lost.Lost = []string{"a"}
	retry := rules
	retry.Retry = true
	run := rules
	run.Targets = map[string]uint64{"a": 1}
	one := all
	one.MaxParallel = 1
	for _, c := range []struct {
		name   string
		s      Snapshot
		r      Rules
		silent []string
		want   string // server=reason, + when it goes now
	}{
		{"young", se(serving("a", "se", 1000, day), serving("b", "se", 1000, day)), rules, nil, "a=young b=young"},
		{"due, one at a time", se(serving("a", "se", 1000, 2*time.Hour), serving("b", "se", 1000, time.Hour)), rules, nil, "b=due+ a=behind"},
		{"repave, floor", se(serving("a", "se", 1000, day), serving("b", "se", 1000, day), serving("c", "se", 1000, day)), all, nil, "a=repave+ b=repave+ c=parallel"},
		{"new first", se(serving("a", "se", 1000, day), Server{Name: "b", Region: "se", Capacity: 1000, State: inventory.New}), all, nil, "b=first_boot+ a=behind"},
		{"all new", se(Server{Name: "a", Region: "se", Capacity: 1000, State: inventory.New}, Server{Name: "b", Region: "se", Capacity: 1000, State: inventory.New}), rules, nil, "a=first_boot+ b=first_boot+"},
		{"in flight keeps the rest", se(state(inventory.Booting, serving("a", "se", 1000, day)), serving("b", "se", 1000, time.Hour)), rules, nil, "b=behind a=in_flight"},
		{"in flight takes the last place", se(state(inventory.Draining, serving("a", "se", 1, day)), serving("b", "se", 1000, time.Hour), serving("c", "se", 1000, day)), one, nil, "b=parallel a=in_flight c=parallel"},
		{"quarantine breaks the floor", se(state(inventory.Quarantined, serving("a", "se", 1000, day)), serving("b", "se", 1000, time.Hour)), rules, nil, "b=floor a=quarantined"},
		{"quarantined, asked for", se(state(inventory.Quarantined, serving("a", "se", 1000, day)), serving("b", "se", 1000, day)), retry, nil, "a=retried+ b=young"},
		{"smaller one passes a head that cannot go", se(state(inventory.Quarantined, serving("a", "se", 1000, day)), serving("b", "se", 1000, time.Hour), serving("c", "se", 400, 2*time.Hour), serving("d", "se", 1, day)), rules, nil, "b=floor c=due+ a=quarantined d=young"},
		{"nobody overtakes a head that waits", se(state(inventory.Booting, serving("a", "se", 1000, day)), serving("b", "se", 1000, time.Hour), serving("c", "se", 400, 2*time.Hour), serving("d", "se", 1, day)), rules, nil, "b=behind c=behind a=in_flight d=young"},
		{"silent is no capacity", se(serving("a", "se", 1000, time.Hour), serving("b", "se", 1000, day)), rules, []string{"b"}, "a=floor b=young"},
		{"a silent one leaves while the rest holds", se(serving("a", "se", 1000, time.Hour), serving("b", "se", 1000, day)), rules, []string{"a"}, "a=due+ b=young"},
		{"a silent region is left alone", se(serving("a", "se", 1000, time.Hour), serving("b", "se", 1000, day)), all, []string{"a", "b"}, "a=floor b=floor"},
		{"lost goes at once", se(serving("a", "se", 1000, day), serving("b", "se", 1000, day)), lost, []string{"a", "b"}, "a=lost+ b=young"},
		{"expired goes at once", se(serving("a", "se", 1000, -time.Second), serving("b", "se", 1000, time.Hour)), rules, nil, "a=expired+ b=behind"},
		{"revoked goes first, and is no capacity", se(serving("a", "se", 1000, time.Hour), revoked(serving("b", "se", 1000, day))), rules, nil, "b=revoked+ a=behind"},
		{"all revoked", se(revoked(serving("a", "se", 1000, day)), revoked(serving("b", "se", 1000, day))), rules, nil, "a=revoked+ b=revoked+"},
		{"revoked in flight is carried on", se(revoked(state(inventory.Booting, serving("a", "se", 1000, day))), serving("b", "se", 1000, day)), rules, nil, "a=in_flight b=young"},
		{"one bastion at a time", se(serving("a", "se", 1000, day), serving("b", "se", 1000, day), bastion(serving("x", "se", 0, day)), bastion(serving("y", "se", 0, day))), all, nil, "a=repave+ b=behind x=repave+ y=bastion"},
		{"a bastion waits for one in flight", se(bastion(state(inventory.Booting, serving("x", "se", 0, day))), bastion(serving("y", "se", 0, time.Hour)), serving("a", "se", 2000, day), serving("b", "se", 2000, time.Hour)), rules, nil, "b=due+ y=bastion a=young x=in_flight"},
		{"a bastion waits for one that is silent", se(bastion(serving("x", "se", 0, day)), bastion(serving("y", "se", 0, time.Hour)), serving("a", "se", 1000, day), serving("b", "se", 1000, day)), rules, []string{"x"}, "y=bastion a=young b=young x=young"},
		{"a bastion by itself", se(bastion(serving("x", "se", 0, time.Hour)), serving("a", "se", 2000, day), serving("b", "se", 2000, day)), rules, nil, "x=due+ a=young b=young"},
		{"a bastion that is over goes at once", se(bastion(serving("x", "se", 0, -time.Second)), bastion(serving("y", "se", 0, time.Hour)), serving("a", "se", 2000, day), serving("b", "se", 2000, day)), rules, nil, "x=expired+ y=bastion a=young b=young"},
		{"deadline unknown", se(Server{Name: "a", Region: "se", Capacity: 1000, State: inventory.Serving, Epoch: 1}, serving("b", "se", 1000, day)), rules, nil, "a=unknown_age+ b=young"},
		{"only the run's", se(serving("a", "se", 1000, day), serving("b", "se", 1000, time.Hour)), run, nil, "b=not_in_run a=repave+"},
		{"the run's is done", se(Server{Name: "a", Region: "se", Capacity: 1000, State: inventory.Serving, Epoch: 2, Deadline: t0.Add(day)}, serving("b", "se", 1000, day)), run, nil, "a=done b=not_in_run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := healthy(c.s)
			for _, x := range c.silent {
				h[x] = t0.Add(-FreshFor - time.Second)
			}
			p, refused := Make(c.s, c.r, h, t0)
			if len(refused) > 0 {
				t.Fatalf("refused: %v", refused)
			}
			var got []string
			for _, s := range p.Steps {
				x := s.Server + "=" + string(s.Reason)
				if s.Now {
					x += "+"
				}
				if s.Why == "" {
					t.Errorf("%s: no reason in words", s.Server)
				}
				got = append(got, x)
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("got %s, want %s", g, c.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	two := Snapshot{Regions: []Region{{"se", 1000}}, Servers: []Server{serving("a", "se", 1000, time.Hour), serving("b", "se", 1000, time.Hour)}}
	alone := Snapshot{Regions: []Region{{"nl", 1}}, Servers: []Server{serving("a", "nl", 1000, time.Hour)}}
	short := rules
	short.MaxAge = 30 * time.Minute
	for _, c := range []struct {
		name string
		s    Snapshot
		r    Rules
		code string
		text string
	}{
		{"floor", alone, rules, FloorImpossible, "capacity 1000 - 1000 (a) = 0, under the floor of 1"},
		{"age", two, short, AgeImpossible, "= 3 rounds of 6m0s"},
		{"zero", two, Rules{}, RulesMalformed, "must be positive"},
		{"region", Snapshot{Servers: two.Servers}, rules, RulesMalformed, "does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, refused := Make(c.s, c.r, healthy(c.s), t0)
			if len(refused) == 0 || refused[0].Code != c.code || !strings.Contains(refused.Error(), c.text) {
				t.Errorf("got %v, want %s with %q", refused, c.code, c.text)
			}
			if len(p.Now()) > 0 || len(p.Targets()) > 0 {
				t.Errorf("a refused plan touches %v", p.Targets())
			}
		})
	}
}

// TestDeterministic: the order in which servers are listed changes nothing; any change of the inputs changes the hash.
func TestDeterministic(t *testing.T) {
	s := Snapshot{Regions: []Region{{"se", 1000}}}
	for _, n := range []string{"d", "b", "c", "a"} {
		s.Servers = append(s.Servers, serving(n, "se", 1000, time.Hour))
	}
	p, _ := Make(s, rules, healthy(s), t0)
	again, _ := Make(s, rules, healthy(s), t0)
	if !reflect.DeepEqual(p, again) {
		t.Errorf("got two plans of one snapshot:\n%+v\n%+v", p, again)
	}
	slices.Reverse(s.Servers)
	turned, _ := Make(s, rules, healthy(s), t0)
	if !reflect.DeepEqual(p.Steps, turned.Steps) {
		t.Errorf("got %+v, want %+v", turned.Steps, p.Steps)
	}
	later, _ := Make(s, rules, healthy(s), t0.Add(time.Second))
	if later.Inputs == turned.Inputs {
		t.Error("got one hash of two inputs")
	}
}

// BenchmarkMake: one plan of a hundred thousand servers, with every kind of limit.
func BenchmarkMake(b *testing.B) {
	s, r := lab(b)
	r.MaxParallel, r.MaxPerHour, r.Floors = 5000, 50000, nil
	s.Regions, s.Servers = nil, nil
	for g := range 1000 {
		name := fmt.Sprintf("r%03d", g)
		s.Regions = append(s.Regions, Region{name, 90_000})
		for k := range 100 {
			x := serving(fmt.Sprintf("%s-%02d", name, k), name, 1000, time.Duration(48+k%48)*time.Hour)
			x.Domains.Rack = fmt.Sprintf("%s-%d", name, k/10)
			s.Servers = append(s.Servers, x)
		}
	}
	h := healthy(s)
	for b.Loop() {
		if _, refused := Make(s, r, h, t0); len(refused) > 0 {
			b.Fatal(refused[0])
		}
	}
}
