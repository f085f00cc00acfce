package connect

import (
	"context"
	"time"
)

// Statistics are what there is, and what has happened.
type Statistics struct {
	// Connections by status.
	Connections map[Status]int
	// Hours are what was logged, by hour, kind and status, in no order.
	Hours []HourStatistics
}

// HourStatistics are the logs of one kind and status that began in one hour.
type HourStatistics struct {
	Hour   time.Time // when it begins
	Kind   LogKind
	Status LogStatus
	Count  int
	Took   time.Duration // on the average
}

// StatisticsStore is the part of a Store that counts.
type StatisticsStore interface {
	// Statistics counts all connections, and what began since.
	Statistics(ctx context.Context, since time.Time) (Statistics, error)
}
