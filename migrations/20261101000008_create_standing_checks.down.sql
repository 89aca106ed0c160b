drop table standing_checks;
