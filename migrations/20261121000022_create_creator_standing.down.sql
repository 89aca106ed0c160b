drop function creator_standing;
