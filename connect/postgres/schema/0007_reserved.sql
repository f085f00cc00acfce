-- compatible: 1

-- Reserved.
SELECT 1;
