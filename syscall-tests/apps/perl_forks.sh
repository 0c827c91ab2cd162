perl -e '
$| = 1; my %kids;
for my $i (1..10) { my $p = fork(); if (!$p) { select(undef, undef, undef, 0.01); exit $i } $kids{$p} = $i }
my $sum = 0; while ((my $p = wait()) > 0) { die unless $kids{$p} == $? >> 8; $sum += $? >> 8 } print "sum $sum\n";
pipe(R, W); if (!fork()) { close R; print W "line $_\n" for 1..1000; exit } close W; my $n = 0; $n++ while <R>; wait; print "lines $n\n";
$SIG{CHLD} = sub { print "chld\n" }; my $p = fork(); exit 0 unless $p; sleep 1; print "got ", waitpid($p, 0) == $p, "\n";
print "backtick ", `echo hi; exit 2`, $? >> 8, "\n"; open(my $f, "-|", "seq 3 | tac") or die; print <$f>;
'
